"""What one network and a pair differ in: initial state, step, sampler, slices on the device."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.data import input_pipeline
from vemseg_jax.data.sampling import CropSampler, EvenSampler
from vemseg_jax.infer.trained import Description
from vemseg_jax.models import registry
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.semi_supervised import (
    create_pair_state,
    make_cps_step,
    make_rule,
    steps_per_epoch,
)
from vemseg_jax.train.state import TrainState, create_state
from vemseg_jax.train.supervised import Objective, make_step

# Slices by what they are for: "train", "val" and "unlabelled".
Loaded = dict[str, input_pipeline.Planes | None]
# The step, what it takes beside the state: a sampler's crops, and slices on the device.
Parts = tuple[Callable, Callable[[int], Any], Any]


def initial_state(
    config: ExperimentConfig, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    """Initial weights and optimizer of one network, or of two that differ."""
    create = create_pair_state if is_pair(config) else create_state
    channels = getattr(config.model, "in_channels", 1)
    return create(model, optimizer, seed=config.train.seed, channels=channels)


def _objective(config: ExperimentConfig) -> Objective:
    plateau = config.optimizer.schedule == "plateau"
    return make_objective(
        config.loss,
        exclusive=registry.is_exclusive(config.model),
        most_drops=config.optimizer.plateau_drops if plateau else 0,
    )


def _labelled_sampler(
    config: ExperimentConfig, planes: input_pipeline.Planes, batch_size: int
) -> CropSampler:
    data = config.data
    return CropSampler(
        planes.label,
        tuple(data.structures),
        crop_size=data.crop_size,
        batch_size=batch_size,
        empty_probability=data.empty_crop_probability,
        seed=config.train.seed,
    )


def supervised_parts(
    config: ExperimentConfig,
    description: Description,
    loaded: Loaded,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> Parts:
    """Of one network that learns from labelled crops alone."""
    training = loaded["train"]
    assert training is not None
    step = make_step(
        model,
        optimizer,
        objective=_objective(config),
        crop_size=config.data.crop_size,
        normalization=description.normalization,
        seed=config.train.seed,
    )
    sampler = _labelled_sampler(config, training, config.train.batch_size)
    return step, sampler, jax.device_put(training)


def pair_parts(
    config: ExperimentConfig,
    description: Description,
    loaded: Loaded,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> Parts:
    """Of two networks that teach each other; half a batch is labelled, half is not."""
    training, unlabelled = loaded["train"], loaded["unlabelled"]
    assert training is not None and unlabelled is not None
    half, data = config.train.batch_size // 2, config.data
    step = make_cps_step(
        model,
        optimizer,
        config=config.cps,
        rule=make_rule(config, _objective(config)),
        crop_size=data.crop_size,
        epoch_steps=steps_per_epoch(config, len(description.train_slices)),
        normalization=description.normalization,
        seed=config.train.seed,
    )
    labelled_crops = _labelled_sampler(config, training, half)
    unlabelled_crops = EvenSampler(
        len(unlabelled.image),
        unlabelled.image.shape[1:],
        crop_size=data.crop_size,
        batch_size=half,
        seed=config.train.seed,
    )
    return (
        step,
        lambda number: (labelled_crops(number), unlabelled_crops(number)),
        jax.device_put((training, unlabelled)),
    )
