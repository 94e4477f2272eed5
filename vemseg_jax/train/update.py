"""From gradients to the next state, for one network and for a pair."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vemseg_jax.train.loss_scale import all_finite
from vemseg_jax.train.optimizer import DROP
from vemseg_jax.train.state import TrainState

# Gradients, the optimizer's state and the parameters to updates and the optimizer's next state.
Update = Callable[[Any, Any, Any], tuple[Any, Any]]


def advance(
    state: TrainState, grads: Any, batch_stats: Any, *, update: Update
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step with these gradients and batch statistics.

    With a loss scale, gradients that overflowed change nothing but the scale and the count of
    steps.

    Returns:
      The state, and with a loss scale the metrics `loss_scale` (of this step), `skipped_steps`
      (so far) and `skipped` (1 if this one was).
    """
    updates, opt_state = update(grads, state.opt_state, state.params)
    # The rate is a factor of the whole update, decay included.
    updates = jax.tree.map(lambda u: u * DROP**state.plateau.drops, updates)
    new = (optax.apply_updates(state.params, updates), batch_stats, opt_state)
    scale, metrics = state.loss_scale, {}
    if scale is not None:
        finite = all_finite(grads)
        old = (state.params, state.batch_stats, state.opt_state)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        following = scale.after(finite)
        metrics = {
            "loss_scale": scale.value,
            "skipped_steps": following.skipped,
            "skipped": ~finite,
        }
        scale = following
    params, batch_stats, opt_state = new
    return TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        plateau=state.plateau,
        loss_scale=scale,
    ), metrics
