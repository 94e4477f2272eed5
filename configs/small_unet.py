"""SmallUNet on nuclei: about half an hour on two CPU cores.

network: U-Net, 3 levels, 16 channels
parameters: 269,009
meant for: CPU
"""

from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.models.unet import SmallUNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=SmallUNetConfig(base_channels=16),
        data=DataConfig(structures=("nuclei",), crop_size=256),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        train=TrainConfig(batch_size=6, steps=1500, eval_every=250, checkpoint_every=250),
    )
