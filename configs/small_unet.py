"""SmallUNet on nuclei: 269,009 parameters, about half an hour on two CPU cores."""

from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.models.unet import SmallUNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=SmallUNetConfig(base_channels=16),
        data=DataConfig(structures=("nuclei",), crop_size=256),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        train=TrainConfig(batch_size=6, steps=1500, eval_every=250, checkpoint_every=250),
    )
