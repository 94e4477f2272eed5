"""UNet++ of the paper on nuclei, for a GPU: ResNet-34 at depth 5, 512 crops.

network: UNet++, ResNet-34 at depth 5
parameters: 26,072,337
meant for: GPU
"""

from vemseg_jax.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.unetplusplus import UNetPlusPlusConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=UNetPlusPlusConfig(),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        loss=LossConfig(name="dice_coef"),
        # 10e-5 for a batch of 256, scaled to this batch: the study's rate.
        optimizer=OptimizerConfig(learning_rate=8 * 10e-5 / 256, schedule="plateau", clip_norm=0),
        # 500 epochs of 64 crops for each of 7 labelled slices, as in the study.
        train=TrainConfig(batch_size=8, steps=28_000, eval_every=56, checkpoint_every=1000),
    )
