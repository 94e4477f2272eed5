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
from vemseg_jax.losses.dice import soft_dice_loss
from vemseg_jax.train.state import TrainState

Metrics = dict[str, jax.Array]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """Forward, soft Dice loss, backward, clip, update: a pure function.

    Returns:
      The next state, and `loss` and `grad_norm` (before clipping), float32 scalars.
    """

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        outputs, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch.image,
            train=True,
            mutable=["batch_stats"],
        )
        loss = soft_dice_loss(outputs["prob"], batch.target, valid=batch.valid)
        return loss, updated["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    following = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return following, {"loss": loss, "grad_norm": optax.tree.norm(grads)}


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    crop_size: int,
    normalization: Normalization,
) -> Callable[[TrainState, Planes, Crops], tuple[TrainState, Metrics]]:
    """Compiles cutting a batch and training on it as one call; the state is donated."""

    def step(state: TrainState, planes: Planes, crops: Crops) -> tuple[TrainState, Metrics]:
        batch = make_batch(planes, crops, crop_size=crop_size, normalization=normalization)
        state, metrics = train_step(state, batch, model=model, optimizer=optimizer)
        return state, jax.tree.map(lambda x: x.astype(jnp.float32), metrics)

    return jax.jit(step, donate_argnums=0)
