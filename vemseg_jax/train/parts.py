"""What one network and a pair differ in: initial state and step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax
from jax import lax

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.infer.trained import Description
from vemseg_jax.parallel import Placement
from vemseg_jax.train.loss_scale import LossScale
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.semi_supervised import (
    create_pair_state,
    make_cps_step,
    make_rule,
    steps_per_epoch,
)
from vemseg_jax.train.state import TrainState, create_state
from vemseg_jax.train.supervised import Objective, make_step

# Takes the state, slices on the device and what to cut from them; gives state and metrics.
Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]


def initial_state(
    config: ExperimentConfig, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    """Initial weights and optimizer of one network, or of two that differ."""
    create = create_pair_state if is_pair(config) else create_state
    channels = config.model.in_channels
    state = create(model, optimizer, seed=config.train.seed, channels=channels)
    return dataclasses.replace(state, loss_scale=LossScale.start(config.train.precision))


def _objective(config: ExperimentConfig) -> Objective:
    plateau = config.optimizer.schedule == "plateau"
    return make_objective(
        config.loss,
        exclusive=config.model.exclusive,
        most_drops=config.optimizer.plateau_drops if plateau else 0,
    )


def make_supervised_step(
    config: ExperimentConfig,
    description: Description,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    placement: Placement,
) -> Step:
    """Builds the supervised training step."""
    return make_step(
        model,
        optimizer,
        objective=_objective(config),
        crop_size=config.data.crop_size,
        normalization=description.normalizations,
        seed=config.train.seed,
        placement=placement,
    )


def make_pair_step(
    config: ExperimentConfig,
    description: Description,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    placement: Placement,
) -> Step:
    """Of two networks that teach each other; half a batch is labelled, half is not."""
    return make_cps_step(
        model,
        optimizer,
        config=config.cps,
        rule=make_rule(config, _objective(config)),
        crop_size=config.data.crop_size,
        epoch_steps=steps_per_epoch(config, description.num_train_slices),
        normalization=description.normalizations,
        seed=config.train.seed,
        placement=placement,
    )


def repeated(step: Step) -> Step:
    """Many steps in one dispatch: crops and metrics have a leading axis of steps.

    For accelerators, which idle between dispatches. XLA runs convolutions within a loop on one
    thread on CPUs: 16 times slower there (small U-Net, 2 cores).
    """

    def steps(state: TrainState, planes: Any, crops: Any) -> tuple[TrainState, dict[str, Any]]:
        return lax.scan(lambda carry, each: step(carry, planes, each), state, crops)

    return jax.jit(steps, donate_argnums=0)
