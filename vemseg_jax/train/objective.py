"""From a network's outputs and a batch to the loss that is minimised."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vemseg_jax.config import LossConfig
from vemseg_jax.data.crops.input_pipeline import Batch
from vemseg_jax.data.crops.targets import boundary_target, distance_target
from vemseg_jax.losses.cross_entropy import cross_entropy_loss
from vemseg_jax.losses.dice import dice_coef_loss, soft_dice_loss
from vemseg_jax.losses.senformer import IGNORED, senformer_loss
from vemseg_jax.losses.tanimoto import TASKS, fractal_tanimoto_loss, multitask_losses

Outputs = Mapping[str, jax.Array]
Losses = dict[str, jax.Array]


def exclusive_batch(batch: Batch) -> Batch:
    """The batch for a network whose classes exclude each other, background first.

    Where structures overlap the one named last counts (nucleoli lie inside nuclei). A pixel
    counts where every structure is labelled.

    Returns:
      `target [b, s, s, 1 + c]`, one of them 1; `valid [b, s, s, 1]`.
    """
    covered = jnp.cumsum(batch.target[..., ::-1], -1)[..., ::-1] - batch.target
    structures = batch.target * (covered == 0)
    background = 1 - batch.target.max(-1, keepdims=True)
    return Batch(
        image=batch.image,
        target=jnp.concatenate([background, structures], -1),
        valid=batch.valid.min(-1, keepdims=True),
    )


def class_label(batch: Batch) -> jax.Array:
    """`[b, s, s]` integers, the class of an exclusive batch or 255 where none counts."""
    return jnp.where(batch.valid[..., 0] == 1, batch.target.argmax(-1), IGNORED)


def targets_of(batch: Batch) -> dict[str, jax.Array]:
    """Segmentation, boundary and distance targets, `[b, s, s, c]`."""
    return {
        "prob": batch.target,
        "boundary": boundary_target(batch.target),
        "distance": distance_target(batch.target),
    }


def _branches(outputs: Outputs) -> list[jax.Array]:
    """Probabilities that are supervised: of every branch, or just the prediction."""
    names = sorted(name for name in outputs if name.startswith("branch_"))
    return [jax.nn.sigmoid(outputs[name]) for name in names] or [outputs["prob"]]


def _dice(loss: Callable) -> Callable:
    def objective(outputs: Outputs, batch: Batch, depth: Any) -> Losses:
        del depth
        parts = [loss(prob, batch.target, valid=batch.valid) for prob in _branches(outputs)]
        return {"loss": jnp.mean(jnp.stack(parts))}

    return objective


def _tanimoto(outputs: Outputs, batch: Batch, depth: Any) -> Losses:
    if not set(TASKS) <= set(outputs):
        parts = [
            fractal_tanimoto_loss(prob, batch.target, depth=depth, valid=batch.valid)
            for prob in _branches(outputs)
        ]
        return {"loss": jnp.mean(jnp.stack(parts))}
    losses = multitask_losses(outputs, targets_of(batch), depth=depth, valid=batch.valid)
    total = jnp.mean(jnp.stack(list(losses.values())))
    return {"loss": total} | {f"loss_{task}": value for task, value in losses.items()}


def _senformer(outputs: Outputs, batch: Batch, depth: Any) -> Losses:
    del depth
    learners = [outputs[name] for name in sorted(outputs) if name.startswith("learner_")]
    return {"loss": senformer_loss(outputs["ensemble"], learners, class_label(batch))}


_OBJECTIVES: Mapping[str, Callable[[Outputs, Batch, Any], Losses]] = {
    "soft_dice": _dice(soft_dice_loss),
    "dice_coef": _dice(dice_coef_loss),
    "fractal_tanimoto": _tanimoto,
    "senformer": _senformer,
}


def make_objective(
    config: LossConfig, *, exclusive: bool, most_drops: int
) -> Callable[[Outputs, Batch, jax.Array], Losses]:
    """The loss as a pure function of outputs, batch and drops of the learning rate so far.

    Args:
      config: which loss.
      exclusive: whether the network's classes exclude each other.
      most_drops: drops there can be.

    Returns:
      A function to a dict with `loss`, what is minimised, and its parts.
    """
    objective = _OBJECTIVES[config.name]
    depths = [config.depth + n * config.depth_per_drop for n in range(most_drops + 1)]

    def loss_of(outputs: Outputs, batch: Batch, drops: jax.Array) -> Losses:
        batch = exclusive_batch(batch) if exclusive else batch
        if config.name != "fractal_tanimoto" or len(depths) == 1:
            return objective(outputs, batch, depths[0])
        # The depths differ in a few scalars: all are computed from the same sums.
        losses = [objective(outputs, batch, depth) for depth in depths]
        return jax.tree.map(lambda *values: jnp.stack(values)[drops], *losses)

    return loss_of


def make_cross_entropy(*, exclusive: bool) -> Callable[[Outputs, Batch, jax.Array], Losses]:
    """Cross entropy in the place of an objective, of the prediction or of every branch."""

    def loss_of(outputs: Outputs, batch: Batch, drops: jax.Array) -> Losses:
        del drops
        batch = exclusive_batch(batch) if exclusive else batch
        names = sorted(name for name in outputs if name.startswith("branch_")) or ["logits"]
        parts = [
            cross_entropy_loss(outputs[name], batch.target, valid=batch.valid, exclusive=exclusive)
            for name in names
        ]
        return {"loss": jnp.mean(jnp.stack(parts))}

    return loss_of
