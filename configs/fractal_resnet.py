"""FracTAL ResNet of the paper on nuclei, for a GPU: 16 filters, depth 4, 512 crops.

network: FracTAL ResNet, 16 filters, depth 4
parameters: 406,843
meant for: GPU
"""

from vemseg_jax.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.fractal_resnet import FractalResNetConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=FractalResNetConfig(),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        # The depth grows by 10 each time the learning rate drops.
        loss=LossConfig(name="fractal_tanimoto", depth=0, depth_per_drop=10),
        # 5e-4 for a batch of 256, scaled to this batch: the study's rate. An epoch of validation
        # is 64 crops for each of 7 labelled slices.
        optimizer=OptimizerConfig(learning_rate=3 * 5e-4 / 256, schedule="plateau", clip_norm=0),
        train=TrainConfig(batch_size=3, steps=74_500, eval_every=149, checkpoint_every=1000),
    )
