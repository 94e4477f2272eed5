"""One step of supervised training."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vemseg_jax.data.input_pipeline import Batch, Planes, make_batch
from vemseg_jax.data.normalization import Normalization
from vemseg_jax.data.sampling import Crops
from vemseg_jax.train.optimizer import DROP
from vemseg_jax.train.state import TrainState

Metrics = dict[str, jax.Array]
Objective = Callable[[Any, Batch, jax.Array], Metrics]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
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
      The next state, and `loss`, its parts and `grad_norm` (before clipping), float32 scalars.
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
        return losses["loss"], (losses, updated.get("batch_stats", {}))

    (_, (losses, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    # The rate is a factor of the whole update, decay included.
    updates = jax.tree.map(lambda u: u * DROP**state.plateau.drops, updates)
    following = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        plateau=state.plateau,
    )
    return following, {**losses, "grad_norm": optax.tree.norm(grads)}


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective,
    crop_size: int,
    normalization: Normalization,
    seed: int,
) -> Callable[[TrainState, Planes, Crops], tuple[TrainState, Metrics]]:
    """Compiles cutting a batch and training on it as one call; the state is donated."""

    def step(state: TrainState, planes: Planes, crops: Crops) -> tuple[TrainState, Metrics]:
        batch = make_batch(planes, crops, crop_size=crop_size, normalization=normalization)
        state, metrics = train_step(
            state, batch, model=model, objective=objective, optimizer=optimizer, seed=seed
        )
        return state, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)

    return jax.jit(step, donate_argnums=0)
