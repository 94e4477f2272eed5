"""Which values of an experiment can be used; what cannot is named before anything is begun."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vemseg_jax.config import (
    CROSS_LOSSES,
    LOSSES,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    PREDICTIONS,
    RAMPS,
    SCHEDULES,
    STATISTICS,
    ExperimentConfig,
    is_pair,
)
from vemseg_jax.errors import InputError
from vemseg_jax.models import registry

# Steps, seeds and sizes are 32 bit wide on the device.
LARGEST_INT = 2**31 - 1
# Terms of the fractal Tanimoto loss: 2 ** d has to be a float32, and each term is compiled.
MOST_DEPTH = 100


def _require(condition: bool, field: str, found: Any, right: str) -> None:
    if not condition:
        raise InputError(f"--config.{field} is {found!r}; it must be {right}")


def check(config: ExperimentConfig) -> None:
    """Raises InputError naming the first field whose value cannot be used."""
    for field in dataclasses.fields(ExperimentConfig):
        section = getattr(config, field.name)
        if field.name != "model" and type(section) is not field.type:
            right = f"a {getattr(field.type, '__name__', field.type)}"
            _require(False, field.name, section, right)
    registry.model_name(config.model)
    for name in ("data", "optimizer", "train", "loss", "cps", "model"):
        _check_types(getattr(config, name), name)
        _check_ranges(getattr(config, name), name)
    _check_data(config)
    _check_others(config)
    _check_model(config)
    _check_loss(config)
    _check_cps(config)


# By type of a field: what a value has to be, and how to say so.
_SCALARS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda v: isinstance(v, bool | np.bool_), "True or False"),
    str: (lambda v: isinstance(v, str), "text"),
    int: (
        lambda v: _is_int(v) and abs(v) <= LARGEST_INT,
        f"a whole number of at most {LARGEST_INT}",
    ),
    float: (lambda v: _is_float(v), "a finite number"),
}


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
    if not (_is_int(value) or isinstance(value, float | np.floating)):
        return False
    # The device computes in float32, which ends at 3e38.
    return abs(float(value)) <= float(np.finfo(np.float32).max)


def _check_types(section: Any, prefix: str) -> None:
    for name, kind in typing.get_type_hints(type(section)).items():
        if typing.get_origin(kind) is typing.ClassVar:
            continue
        value, field = getattr(section, name), f"{prefix}.{name}"
        if kind in _SCALARS:
            fits, right = _SCALARS[kind]
            _require(fits(value), field, value, right)
        elif typing.get_origin(kind) is tuple:
            # Networks are hashed: a list cannot be.
            allowed = tuple if prefix == "model" else tuple | list
            item, *rest = typing.get_args(kind)
            fits, right = _SCALARS[item]
            shown = "('nuclei', 'nucleoli')" if item is str else "(1, 2)"
            count = "two items" if rest != [Ellipsis] else "each item"
            right = f"a tuple such as {shown}, {count} {right}"
            well = isinstance(value, allowed) and all(fits(each) for each in value)
            _require(well and (rest == [Ellipsis] or len(value) == 2), field, value, right)


def _least(number: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: v >= number), f"at least {number}"


def _positive(numbers: Sequence[int]) -> bool:
    return bool(numbers) and min(numbers) >= 1


_POSITIVE = (lambda v: v > 0), "greater than 0"
_DEPTH = (lambda v: 0 <= v <= MOST_DEPTH), f"from 0 to {MOST_DEPTH}"
# Some names stand for a number in one network and for several in another.
_CHANNELS = (
    lambda v: _positive(v) if isinstance(v, tuple) else v >= 1,
    "at least 1, each where it is several",
)
_SIZES = dict.fromkeys(
    ("num_classes", "base_channels", "features", "branch_depth", "encoder_depth", "depth",
     "psp_depth", "norm_groups", "heads", "filters", "decoder_channels"), _CHANNELS
)  # fmt: skip


def _one_of(choices: Sequence[str]) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: v in choices), f"one of {', '.join(choices)}"


RANGES: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "data": {
        "volume": (bool, "the path of a converted volume"),
        "structures": (lambda v: bool(v) and all(v), "at least one label name"),
        "crop_size": (lambda v: v >= 16, "at least 16 pixels"),
        "empty_crop_probability": (lambda v: 0 <= v < 1, "in [0, 1)"),
        "train_slices": (lambda v: all(z >= 0 for z in v), "slice numbers, from 0"),
        "val_slices": (lambda v: all(z >= 0 for z in v), "slice numbers, from 0"),
        **dict.fromkeys(
            ("num_train_slices", "num_val_slices", "memory_budget_gib", "cache_gib"), _least(0)
        ),
    },
    "optimizer": {
        "name": _one_of(OPTIMIZERS),
        "schedule": _one_of(SCHEDULES),
        "learning_rate": _POSITIVE,
        **dict.fromkeys(
            ("weight_decay", "plateau_patience", "plateau_threshold", "plateau_drops",
             "warmup_steps", "power", "clip_norm"), _least(0)
        ),
    },
    "train": {
        "precision": _one_of(PRECISIONS),
        **dict.fromkeys(("batch_size", "steps", "log_every", "checkpoint_every"), _least(1)),
        **dict.fromkeys(("seed", "eval_every", "steps_per_dispatch", "devices"), _least(0)),
    },
    "loss": {"name": _one_of(LOSSES), "depth": _DEPTH, "depth_per_drop": _DEPTH},
    "cps": {
        "method": _one_of(METHODS),
        "loss": _one_of(CROSS_LOSSES),
        "ramp": _one_of(RAMPS),
        "statistics": _one_of(STATISTICS),
        "prediction": _one_of(PREDICTIONS),
    },
    "model": {
        # Slices are grey.
        "in_channels": (lambda v: v == 1, "1: slices are grey"),
        "attention_depth": _DEPTH,
        **_SIZES,
    },
}  # fmt: skip
# Of two networks that teach each other.
PAIR_RANGES = {
    "weight": _POSITIVE,
    "ramp_first": _POSITIVE,
    "ramp_start": _least(0),
    "epoch_crops": _least(1),
    "collapse_steps": _least(1),
}


def _check_ranges(section: Any, prefix: str) -> None:
    for name, (fits, right) in RANGES[prefix].items():
        if hasattr(section, name):
            value = getattr(section, name)
            _require(fits(value), f"{prefix}.{name}", value, right)


def _check_data(config: ExperimentConfig) -> None:
    data = config.data
    repeated = len(set(data.structures)) < len(data.structures)
    _require(not repeated, "data.structures", data.structures, "names that differ")
    low, high = data.z_range
    ordered = (low, high) == (0, 0) or 0 <= low < high
    _require(ordered, "data.z_range", data.z_range, "(first, one past the last), first < last")
    number, chosen = data.num_train_slices, data.train_slices
    right = f"0, or {len(chosen)}, as many as there are in --config.data.train_slices"
    _require(not chosen or number in (0, len(chosen)), "data.num_train_slices", number, right)


def _check_others(config: ExperimentConfig) -> None:
    data = config.data
    if not data.other_volumes:
        return
    found, right = data.other_volumes, "paths that differ from each other and from data.volume"
    differ = len({data.volume, *found}) == 1 + len(found)
    _require(differ and all(found), "data.other_volumes", found, right)
    for name, empty in (("z_range", (0, 0)), ("train_slices", ())):
        value = tuple(getattr(data, name))
        right = f"{empty} with data.other_volumes: slices are numbered in each volume"
        _require(value == empty, f"data.{name}", value, right)
    kinds = (2 if is_pair(config) else 1) * (1 + len(found))
    right = f"a multiple of {kinds}: as many crops of each volume"
    batch = config.train.batch_size
    _require(batch % kinds == 0, "train.batch_size", batch, right)


def _check_model(config: ExperimentConfig) -> None:
    structures = config.data.structures
    classes = config.model.num_classes
    exclusive = config.model.exclusive
    right = f"{len(structures) + exclusive}, one for each of --config.data.structures"
    right += " and one for the background" if exclusive else ""
    fits = classes == len(structures) + exclusive
    _require(fits, "model.num_classes", classes, right)
    # The network's own checks, of what has to go together.
    registry.create_model(config.model)


def _check_loss(config: ExperimentConfig) -> None:
    loss, optimizer = config.loss, config.optimizer
    has_learners = hasattr(config.model, "branch_depth")
    if loss.name == "senformer":
        _require(has_learners, "loss.name", loss.name, "another one: the network has no learners")
    tanimoto = loss.name == "fractal_tanimoto"
    right = f"0 with --config.loss.name={loss.name}: only fractal_tanimoto has a depth"
    _require(tanimoto or loss.depth == 0, "loss.depth", loss.depth, right)
    if optimizer.schedule == "plateau":
        data = config.data
        watched = bool(config.train.eval_every and (data.num_val_slices or data.val_slices))
        right = "another one: a plateau needs validation (train.eval_every, data.num_val_slices)"
        _require(watched, "optimizer.schedule", optimizer.schedule, right)
        deepest = loss.depth + optimizer.plateau_drops * loss.depth_per_drop
        right = f"less: after all drops of the rate the loss has depth {deepest} of {MOST_DEPTH}"
        allowed = not tanimoto or deepest <= MOST_DEPTH
        _require(allowed, "loss.depth_per_drop", loss.depth_per_drop, right)


def _check_cps(config: ExperimentConfig) -> None:
    cps, batch = config.cps, config.train.batch_size
    if not is_pair(config):
        return
    for name, (fits, right) in PAIR_RANGES.items():
        value = getattr(cps, name)
        _require(fits(value), f"cps.{name}", value, right)
    right = f"greater than cps.ramp_start ({cps.ramp_start:g})"
    _require(cps.ramp_end > cps.ramp_start, "cps.ramp_end", cps.ramp_end, right)
    _require(batch % 2 == 0, "train.batch_size", batch, "even: half labelled, half unlabelled")
    if cps.method == "cps_cutmix":
        _require(batch >= 4, "train.batch_size", batch, "at least 4: CutMix mixes pairs")
