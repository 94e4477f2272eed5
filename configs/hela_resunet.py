"""Nuclei of the HeLa SBF-SEM volume from 7 labelled slices, ResUNet at a size for 2 CPU cores.

network: ResUNet, a quarter of the width
parameters: 2,065,809
meant for: CPU
"""

from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.models.resunet import ResUNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ResUNetConfig(filters=(16, 32, 64, 128, 128)),
        data=DataConfig(
            structures=("nuclei",),
            crop_size=256,
            z_range=(0, 150),
            num_train_slices=7,
            num_val_slices=0,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50),
        train=TrainConfig(batch_size=4, steps=600, eval_every=0, checkpoint_every=100),
    )
