"""Cross entropy, for pseudo labels."""

import jax
import jax.numpy as jnp


def cross_entropy_loss(
    logits: jax.Array, target: jax.Array, *, valid: jax.Array, exclusive: bool
) -> jax.Array:
    """Mean cross entropy over the pixels that count.

    Source: Chen et al. 2021, whose CPS loss it is.

    Args:
      logits: `[b, h, w, c]`, before the sigmoid; with exclusive classes before the softmax (its
        logarithm does too).
      target: `[b, h, w, c]`, 0 or 1.
      valid: `[b, h, w, c]`, or `[b, h, w, 1]` with exclusive classes; 1 where a pixel counts.
      exclusive: one of the channels is right, not each of them by itself.

    Returns:
      The loss, a scalar of at least 0; 0 where no pixel counts.
    """
    if exclusive:
        losses = -jnp.sum(target * jax.nn.log_softmax(logits), -1, keepdims=True)
    else:
        losses = jnp.logaddexp(0, logits) - target * logits
    return jnp.sum(losses * valid) / jnp.maximum(jnp.sum(valid), 1)
