"""UNet++ of the semi-supervised study, trained on labels alone: ResNet-34 at depth 3.

network: UNet++, ResNet-34 at depth 3
parameters: 2,017,937
meant for: GPU
"""

from vemseg_jax.config import (
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
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1500),
        # 500 epochs of 64 crops for each of 7 labelled slices, as in the paper.
        train=TrainConfig(batch_size=8, steps=28_000, eval_every=1000, checkpoint_every=1000),
    )
