"""SenFormer of the paper on nuclei, for a GPU: Swin-T, 512 crops.

network: SenFormer, Swin-T
parameters: 141,785,050
meant for: GPU
"""

from vemseg_jax.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.models.senformer import SenFormerConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        model=SenFormerConfig(num_classes=2),
        data=DataConfig(structures=("nuclei",), crop_size=512),
        loss=LossConfig(name="senformer"),
        optimizer=OptimizerConfig(
            name="adamw",
            weight_decay=0.01,
            learning_rate=6e-5,
            warmup_steps=1500,
            clip_norm=0.1,
        ),
        # 750 epochs of 64 crops for each of 7 labelled slices, as in the study.
        train=TrainConfig(batch_size=8, steps=42_000, eval_every=1000, checkpoint_every=1000),
    )
