"""U-Net of the reference on nuclei, for a GPU: crops of 512 at training scale (2048 at 4x).

network: U-Net, 4 levels, 64 channels
parameters: 17,266,241
meant for: GPU
"""

from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.models.unet import UNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        # The tanh head belongs to the reference's network, not to this loss.
        model=UNetConfig(tanh_head=False),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1500),
        # 500 epochs of 64 crops for each of 7 labelled slices, as in the paper.
        train=TrainConfig(batch_size=8, steps=28_000, eval_every=1000, checkpoint_every=1000),
    )
