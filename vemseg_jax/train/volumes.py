"""The volumes that a configuration names."""

import dataclasses
from pathlib import Path

from vemseg_jax.config import ExperimentConfig
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path, same_place


def with_absolute_volumes(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration with absolute paths, which checkpoints then record.

    Raises:
      InputError: something that is no path, or a volume that is named twice.
    """
    data = config.data
    volume = str(local_path(data.volume, flag="--config.data.volume"))
    others = [local_path(p, flag="--config.data.other_volumes") for p in data.other_volumes]
    before = [Path(volume)]
    for other in others:
        if any(same_place(other, each) for each in before):
            raise InputError(
                f"--config.data.other_volumes: {other} is given twice or is data.volume; name"
                " every volume once"
            )
        before.append(other)
    data = dataclasses.replace(data, volume=volume, other_volumes=tuple(map(str, others)))
    return dataclasses.replace(config, data=data)
