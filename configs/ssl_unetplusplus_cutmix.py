"""CPS with CutMix of two UNet++ (ResNet-34, depth 3): the study's settings, for a GPU.

network: two UNet++, ResNet-34 at depth 3, semi-supervised with CutMix
parameters: 2 x 2,017,937
meant for: GPU
"""

from vemseg_jax.config import (
    CPSConfig,
    DataConfig,
    ExperimentConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.unetplusplus import UNetPlusPlusConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=UNetPlusPlusConfig(encoder_depth=3, decoder_channels=(128, 64, 16)),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        cps=CPSConfig(method="cps_cutmix"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1500),
        # 500 epochs of 64 crops for each of 7 labelled slices, 10 of them in a batch of 20.
        train=TrainConfig(batch_size=20, steps=22_500, eval_every=1000, checkpoint_every=1000),
    )
