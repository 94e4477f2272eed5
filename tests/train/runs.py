"""Small volumes and configurations to train on."""

import numpy as np

from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.models.unet import SmallUNetConfig


def write_volume(path, *, depth=6, labelled=(0, 2, 5), size=(40, 48), downsample=1, seed=0):
    """Bright disks on noise; the disks are `nuclei`, a dark spot in each `nucleoli`."""
    rng = np.random.default_rng(seed)
    h, w = (side * downsample for side in size)
    y, x = np.mgrid[:h, :w]
    centre = rng.uniform(0.3, 0.7, 2) * (h, w)
    away = np.hypot(y - centre[0], x - centre[1]) / downsample
    nuclei, nucleoli = (away < 12).astype(np.uint8), (away < 4).astype(np.uint8)
    options = {"dtype": np.uint8, "voxel_size": (40, 40 / downsample, 40 / downsample)}
    with create_volume(path, shape=(depth, h, w), downsample=downsample, **options) as writer:
        for z in range(depth):
            grey = 100 + 60 * nuclei - 80.0 * nucleoli + rng.normal(0, 15, (h, w))
            writer.write(z, np.clip(grey, 0, 255).astype(np.uint8))
    for name, mask in (("nuclei", nuclei), ("nucleoli", nucleoli)):
        with create_label(path, name) as label:
            for z in labelled:
                label.write_mask(z, mask)
    return path


def small_config(volume, **train):
    """A few steps of a tiny network."""
    options = {"batch_size": 2, "steps": 6, "log_every": 2, "eval_every": 3, "checkpoint_every": 2}
    return ExperimentConfig(
        model=SmallUNetConfig(base_channels=4, levels=1),
        data=DataConfig(volume=str(volume), crop_size=32),
        optimizer=OptimizerConfig(warmup_steps=2),
        train=TrainConfig(**{**options, **train}),
    )
