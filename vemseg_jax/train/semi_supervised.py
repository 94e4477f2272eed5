"""What a run of two networks that teach each other is made of."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from absl import logging

from vemseg_jax.config import CPSConfig, ExperimentConfig
from vemseg_jax.data.crops.cutmix import draw_masks, mixing_order
from vemseg_jax.data.crops.input_pipeline import Batch, Planes, make_batch
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.models import pair
from vemseg_jax.models.initial import initial_variables
from vemseg_jax.parallel import ONE_DEVICE, Network, Placement
from vemseg_jax.train.cps import CPSRule, cps_step
from vemseg_jax.train.objective import make_cross_entropy
from vemseg_jax.train.plateau import Plateau
from vemseg_jax.train.schedules import consistency_schedule
from vemseg_jax.train.state import TrainState
from vemseg_jax.train.supervised import Metrics, Objective

# What the second network's seed is away from the first's, which is that of a supervised run.
OTHER_SEED = 1_000_003

Both = tuple[Planes, Planes]
BothCrops = tuple[Crops, Crops]


def create_pair_state(
    model: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, channels: int
) -> TrainState:
    """Initialises two networks that differ, and the optimizer of each, from one seed."""
    networks = [
        initial_variables(model, seed=each, channels=channels) for each in (seed, seed + OTHER_SEED)
    ]
    variables = pair.join(*networks)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=jax.vmap(optimizer.init)(variables["params"]),
        plateau=Plateau.start(),
    )


def steps_per_epoch(config: ExperimentConfig, train_slices: int) -> int:
    """Steps in which `epoch_crops` labelled crops of each labelled slice are seen."""
    return math.ceil(2 * config.cps.epoch_crops * train_slices / config.train.batch_size)


def make_rule(config: ExperimentConfig, objective: Objective) -> CPSRule:
    """The rule of a configuration; `objective` is the loss of labelled crops."""
    cps, exclusive = config.cps, config.model.exclusive
    entropy = cps.loss == "cross_entropy"
    return CPSRule(
        supervised=objective,
        cross=make_cross_entropy(exclusive=exclusive) if entropy else objective,
        cutmix=cps.method == "cps_cutmix",
        on_labelled=cps.on_labelled,
        merged=cps.statistics == "merged",
        exclusive=exclusive,
        vmapped=cps.vmapped,
    )


def make_cps_step(
    model: Network,
    optimizer: optax.GradientTransformation,
    *,
    config: CPSConfig,
    rule: CPSRule,
    crop_size: int,
    epoch_steps: int,
    normalization: Normalization | tuple[Normalization, ...],
    seed: int,
    placement: Placement = ONE_DEVICE,
) -> Callable[[TrainState, Both, BothCrops], tuple[TrainState, Metrics]]:
    """Compiles cutting labelled and unlabelled crops, drawing boxes and one step as one call.

    The state is donated. Crops and boxes are a pure function of seed and step.
    """
    network = placement.network(model)
    weight_at = consistency_schedule(config, steps_per_epoch=epoch_steps)

    def step(state: TrainState, planes: Both, crops: BothCrops) -> tuple[TrainState, Metrics]:
        labelled, unlabelled = (
            make_batch(each, where, crop_size=crop_size, normalization=normalization)
            for each, where in zip(planes, crops, strict=True)
        )
        mask = None
        if rule.cutmix:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            labelled, unlabelled = (
                _for_mixing(batch, where, jax.random.fold_in(key, n))
                for n, (batch, where) in enumerate(zip((labelled, unlabelled), crops, strict=True))
            )
            halves = labelled.image.shape[0] // 2 * (2 if rule.on_labelled else 1)
            mask = draw_masks(key, halves, (crop_size, crop_size))
        state, metrics = cps_step(
            state,
            labelled,
            unlabelled,
            model=network,
            rule=rule,
            optimizer=optimizer,
            weight=weight_at(state.step),
            mask=mask,
            seed=seed,
        )
        return state, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)

    return placement.step(step)


def _for_mixing(batch: Batch, crops: Crops | tuple[Crops, ...], key: jax.Array) -> Batch:
    """The batch in an order in which its halves hold every volume; of one volume as it is."""
    if isinstance(crops, Crops):
        return batch
    order = mixing_order(key, len(crops), crops[0].plane.shape[0])
    return jax.tree.map(lambda x: jnp.take(x, order, axis=0), batch)


class CollapseWatch:
    """Warns of a network whose pseudo labels have been empty for many steps in a row.

    Nothing teaches nothing: two networks that agree on background have a cross loss of 0.
    """

    def __init__(self, steps: int):
        self._steps, self._empty = steps, {1: 0, 2: 0}

    def __call__(self, done: int, metrics: dict[str, Any]) -> None:
        """Looks at the metrics of the step that was just `done`."""
        for number in self._empty:
            empty = metrics[f"pseudo_foreground_{number}"] == 0
            self._empty[number] = self._empty[number] + 1 if empty else 0
            if self._empty[number] == self._steps:
                logging.warning(
                    "step %d: network %d has predicted only background for %d steps in a row; "
                    "if that lasts, lower --config.optimizer.learning_rate, or let the labelled "
                    "crops teach for longer (--config.cps.ramp_start, --config.cps.ramp_end)",
                    done,
                    number,
                    self._steps,
                )
