"""The fractal Tanimoto similarity, for attention and for losses."""

import jax
import jax.numpy as jnp

SMOOTH = 1e-5


def fractal_tanimoto(
    p: jax.Array,
    q: jax.Array,
    *,
    axes: int | tuple[int, ...],
    depth: int,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Mean over d < depth of the Tanimoto similarity T_d, and of that of the complements.

    T_d = (pq + s) / (2^d (pp + qq) - (2^(d+1) - 1) pq + s), with pq = sum(p q) and s = 1e-5;
    the result is the mean of T(p, q) and T(1 - p, 1 - q). The denominator is computed as
    pq + 2^d sum((p - q)^2) + s: the same number, but it does not subtract large sums from each
    other, which costs the written form its digits at depth 20.

    Source: Diakogiannis et al. 2021, eq. 9 and 12, as used by Pagano et al. 2023.

    Args:
      p, q: arrays of one shape, values in [0, 1]; summed in float32 at least.
      axes: which to sum over; they stay with size 1.
      depth: number of terms; 0 and 1 are the same function.
      valid: 1 where a value counts and 0 where it is left out; None counts all.

    Returns:
      The similarity in (0, 1].
    """
    wide = jnp.promote_types(p.dtype, jnp.float32)
    p, q = p.astype(wide), q.astype(wide)

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(x if valid is None else x * valid, axes, keepdims=True)

    apart = total(jnp.square(p - q))
    common, common_complement = total(p * q), total((1 - p) * (1 - q))
    levels = [float(2**d) * apart + SMOOTH for d in range(max(depth, 1))]

    def similarity(both: jax.Array) -> jax.Array:
        return (both + SMOOTH) * sum(1 / (both + level) for level in levels) / len(levels)

    return 0.5 * (similarity(common) + similarity(common_complement))
