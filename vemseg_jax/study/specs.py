"""Configurations as they travel from the study to the process of a run."""

import dataclasses
import json
from typing import Any

from vemseg_jax.config import (
    CPSConfig,
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    plain,
)
from vemseg_jax.models import registry

_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "loss": LossConfig,
    "cps": CPSConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
}


def to_values(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as JSON values."""
    sections = {name: plain(getattr(config, name)) for name in _SECTIONS}
    return json.loads(
        json.dumps({"model": plain(registry.model_to_dict(config.model)), **sections})
    )


def experiment_of(spec: dict[str, Any]) -> ExperimentConfig:
    """The inverse of `to_values`, of the entry `config`."""
    values = spec["config"]
    sections = {}
    for name, kind in _SECTIONS.items():
        fields = {f.name: values[name][f.name] for f in dataclasses.fields(kind)}
        lists = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        sections[name] = kind(**lists)
    return ExperimentConfig(model=registry.model_from_dict(values["model"]), **sections)
