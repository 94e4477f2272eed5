"""Cross Pseudo Supervision of two ResUNet: the study's settings, for a GPU.

network: two ResUNet, semi-supervised
parameters: 2 x 32,974,401
meant for: GPU
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
        model=ResUNetConfig(),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        cps=CPSConfig(method="cps"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1500),
        # 500 epochs of 64 crops for each of 7 labelled slices, 10 of them in a batch of 20.
        train=TrainConfig(batch_size=20, steps=22_500, eval_every=1000, checkpoint_every=1000),
    )
