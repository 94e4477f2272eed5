"""Cross Pseudo Supervision with CutMix of two small networks (UNet++), minutes on 2 CPU cores.

network: two small UNet++, semi-supervised with CutMix
parameters: 2 x 1,007,121
meant for: CPU
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
        model=UNetPlusPlusConfig(
            encoder="resnet18", encoder_depth=3, decoder_channels=(64, 32, 16)
        ),
        data=DataConfig(structures=("nuclei",), crop_size=128),
        # Short epochs, so that the ramp ends after 140 steps with 7 labelled slices.
        cps=CPSConfig(method="cps_cutmix", epoch_crops=4),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20),
        train=TrainConfig(batch_size=8, steps=400, eval_every=100, checkpoint_every=100),
    )
