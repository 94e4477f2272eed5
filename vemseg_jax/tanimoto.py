"""The fractal Tanimoto similarity, for attention and for losses."""

import functools

import jax
import jax.numpy as jnp

SMOOTH = 1e-5


def _denominators(common: jax.Array, apart: jax.Array, depth: int) -> list[jax.Array]:
    return [common + (2.0**d * apart + SMOOTH) for d in range(max(depth, 1))]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _similarity(common: jax.Array, apart: jax.Array, depth: int) -> jax.Array:
    """Mean over d < depth of (common + s) / (common + 2^d apart + s), by element.

    The derivative is written out, and both end in a quotient: XLA repeats products and sums in
    each place that uses them and then keeps every level for them, but not quotients. Otherwise
    the levels are most of what a network of attentions has to compile.
    """
    denominators = _denominators(common, apart, depth)
    first = denominators[0]
    terms = [(common + SMOOTH) * (first / each) for each in denominators]
    return sum(terms) / (len(terms) * first)


@_similarity.defjvp
def _similarity_jvp(depth: int, primals: tuple, tangents: tuple) -> tuple:
    common, apart = primals
    denominators = _denominators(common, apart, depth)
    top = common + SMOOTH
    terms = [2.0**d * jnp.square(top) / jnp.square(each) for d, each in enumerate(denominators)]
    weight = sum(terms) / (len(terms) * top)
    slope = weight * (apart / top * tangents[0] - tangents[1])
    return _similarity(common, apart, depth), slope


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
    both = total(p * q), total((1 - p) * (1 - q))
    return 0.5 * (_similarity(both[0], apart, depth) + _similarity(both[1], apart, depth))
