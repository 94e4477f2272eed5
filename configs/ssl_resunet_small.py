"""Cross Pseudo Supervision of two small networks (ResUNet), minutes on 2 CPU cores.

network: two small ResUNet, semi-supervised
parameters: 2 x 822,737
meant for: CPU
"""

from vemseg_jax.config import (
    CPSConfig,
    DataConfig,
    ExperimentConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.resunet import ResUNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=ResUNetConfig(filters=(16, 32, 64, 64, 64)),
        data=DataConfig(structures=("nuclei",), crop_size=128),
        # Short epochs, so that the ramp ends after 140 steps with 7 labelled slices.
        cps=CPSConfig(method="cps", epoch_crops=4),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20),
        train=TrainConfig(batch_size=8, steps=400, eval_every=100, checkpoint_every=100),
    )
