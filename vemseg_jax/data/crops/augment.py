"""Flips and quarter turns of square crops, on the device."""

import jax
import jax.numpy as jnp

SYMMETRIES = 8


def flip_turn(x: jax.Array, code: jax.Array) -> jax.Array:
    """One of the eight symmetries of the square for each image of a batch.

    Flips and 90-degree rotations together are exactly these eight; each is a choice of
    transposing, flipping up-down and flipping left-right.

    Args:
      x: `[b, s, s, c]`, square.
      code: `[b]` integers in [0, 8): bit 0 flips left-right, bit 1 flips up-down, bit 2
        transposes first.

    Returns:
      The transformed batch, same shape and type.
    """

    def choose(bit: int, changed: jax.Array, kept: jax.Array) -> jax.Array:
        return jnp.where(((code >> bit) & 1).astype(bool)[:, None, None, None], changed, kept)

    x = choose(2, x.swapaxes(1, 2), x)
    x = choose(1, x[:, ::-1], x)
    return choose(0, x[:, :, ::-1], x)
