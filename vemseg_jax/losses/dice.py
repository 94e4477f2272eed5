"""Soft Dice losses."""

import jax
import jax.numpy as jnp

SMOOTH = 1e-5


def soft_dice_loss(
    prob: jax.Array,
    target: jax.Array,
    *,
    valid: jax.Array | None = None,
    smooth: float = SMOOTH,
) -> jax.Array:
    """1 - (2 sum(p t) + smooth) / (sum(p^2) + sum(t^2) + smooth), over the whole batch.

    The sums run over all images of the batch, not per image, as in the reference of Pagano et
    al. 2023 (after Milletari et al. 2016). With several channels each has its own sums and the
    loss is their mean. An empty target with an empty prediction gives 0.

    Args:
      prob: `[b, h, w, c]` probabilities in [0, 1].
      target: `[b, h, w, c]`, 0 or 1.
      valid: `[b, h, w, c]` or broadcastable, 1 where the pixel counts and 0 where it is left
        out of every sum; None counts all.
      smooth: added to numerator and denominator: 1e-5 for training, 1 in `dice_coef_loss`.

    Returns:
      The loss, a scalar in [0, 1].
    """
    target = target.astype(prob.dtype)
    if valid is not None:
        prob, target = prob * valid, target * valid
    common = _total(prob * target)
    total = _total(jnp.square(prob)) + _total(jnp.square(target))
    return jnp.mean(1 - (2 * common + smooth) / (total + smooth))


def _total(x: jax.Array) -> jax.Array:
    """Sums `[b, h, w, c]` to `[c]`, along w first.

    XLA's code for a CPU adds a small map up number by number: 1e-6 off in the loss. It would join
    the two sums to one again.
    """
    rows = jax.lax.optimization_barrier(jnp.sum(x, -2))
    return jnp.sum(rows, tuple(range(rows.ndim - 1)))


def dice_coef_loss(
    prob: jax.Array, target: jax.Array, *, valid: jax.Array | None = None
) -> jax.Array:
    """Soft Dice loss with smoothing 1, as the reference trains its deep UNet++."""
    return soft_dice_loss(prob, target, valid=valid, smooth=1.0)


def hard_dice(prediction: jax.Array, target: jax.Array, *, smooth: float = 1.0) -> jax.Array:
    """(2 |P and T| + smooth) / (|P| + |T| + smooth) of two 0/1 arrays of the same shape."""
    prediction, target = prediction.astype(jnp.float32), target.astype(jnp.float32)
    common = jnp.sum(prediction * target)
    return (2 * common + smooth) / (jnp.sum(prediction) + jnp.sum(target) + smooth)
