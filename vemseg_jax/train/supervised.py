"""One step of supervised training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vemseg_jax.data.crops.input_pipeline import Batch, Planes, make_batch
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.parallel import ONE_DEVICE, Network, Placement
from vemseg_jax.train.loss_scale import scaled, unscaled
from vemseg_jax.train.state import TrainState
from vemseg_jax.train.update import advance

Metrics = dict[str, jax.Array]
Objective = Callable[[Any, Batch, jax.Array], Metrics]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, Metrics]:
    """Forward, loss, backward, clip, update: a pure function.

    Args:
      state: before the step.
      batch: what to train on.
      model: the network.
      objective: from its outputs to the losses, see `train.objective`.
      optimizer: clips and updates.
      seed: of what is dropped at random; with the state's step it decides it all.

    Returns:
      The next state, and `loss`, its parts and `grad_norm` (before clipping), float32 scalars;
      for float16 those of `train.update.advance` too.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), state.step)

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        outputs, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch.image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        losses = objective(outputs, batch, state.plateau.drops)
        aux = losses, updated.get("batch_stats", {})
        return scaled(losses["loss"], state.loss_scale), aux

    (_, (losses, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    grads = unscaled(grads, state.loss_scale)
    following, metrics = advance(state, grads, batch_stats, update=optimizer.update)
    return following, {**losses, "grad_norm": optax.tree.norm(grads), **metrics}


def make_step(
    model: Network,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective,
    crop_size: int,
    normalization: Normalization | tuple[Normalization, ...],
    seed: int,
    placement: Placement = ONE_DEVICE,
) -> Callable[[TrainState, Planes, Crops], tuple[TrainState, Metrics]]:
    """Compiles cutting a batch and training on it as one call; the state is donated."""
    network = placement.network(model)

    def step(state: TrainState, planes: Planes, crops: Crops) -> tuple[TrainState, Metrics]:
        batch = make_batch(planes, crops, crop_size=crop_size, normalization=normalization)
        state, metrics = train_step(
            state, batch, model=network, objective=objective, optimizer=optimizer, seed=seed
        )
        return state, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)

    return placement.step(step)
