"""Fractal Tanimoto losses, for one map and for the multitask networks."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vemseg_jax.tanimoto import fractal_tanimoto

TASKS = ("prob", "boundary", "distance")


def fractal_tanimoto_loss(
    prob: jax.Array, target: jax.Array, *, depth: int, valid: jax.Array | None = None
) -> jax.Array:
    """1 - the fractal Tanimoto similarity of each image, averaged over the batch.

    Source: Diakogiannis et al. 2021; see `vemseg_jax.tanimoto` for the formula.

    Args:
      prob: `[b, h, w, c]` in [0, 1].
      target: `[b, h, w, c]` in [0, 1].
      depth: number of terms; 0 and 1 are the same function.
      valid: `[b, h, w, c]` or broadcastable, 1 where the pixel counts, 0 where it is left out;
        None counts all.

    Returns:
      The loss, a scalar in [0, 1).
    """
    similarity = fractal_tanimoto(
        prob, target.astype(prob.dtype), axes=(1, 2, 3), depth=depth, valid=valid
    )
    return jnp.mean(1 - similarity)


def multitask_losses(
    outputs: Mapping[str, jax.Array],
    targets: Mapping[str, jax.Array],
    *,
    depth: int,
    valid: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """The fractal Tanimoto losses of segmentation, boundary and distance.

    Args:
      outputs: of a network with the multitask head: `prob`, `boundary`, `distance`.
      targets: the same names, `[b, h, w, c]` in [0, 1].
      depth: of the loss.
      valid: as in `fractal_tanimoto_loss`.

    Returns:
      One loss a task; their mean is what the reference minimises.
    """
    return {
        task: fractal_tanimoto_loss(outputs[task], targets[task], depth=depth, valid=valid)
        for task in TASKS
    }
