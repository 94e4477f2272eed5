"""U-Net on ResNet-34 on nuclei, for a GPU, with the study's settings for such networks.

network: U-Net, ResNet-34
parameters: 24,430,097
meant for: GPU
"""

from vemseg_jax.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.smp_unet import SmpUNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=SmpUNetConfig(),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        loss=LossConfig(name="dice_coef"),
        # 10e-5 for a batch of 256, scaled to this batch: the study's rate.
        optimizer=OptimizerConfig(learning_rate=8 * 10e-5 / 256, schedule="plateau", clip_norm=0),
        # 500 epochs of 64 crops for each of 7 labelled slices, as in the study.
        train=TrainConfig(batch_size=8, steps=28_000, eval_every=56, checkpoint_every=1000),
    )
