"""The arithmetic of batch and group normalisation, with a gradient of its own."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# torch's default; those of flax differ.
EPSILON = 1e-5


def _average(values: jax.Array, groups: int) -> jax.Array:
    """Averages `[b, c]` over the batch (`groups` 0) or over runs of channels, same shape."""
    if not groups:
        return jnp.broadcast_to(values.mean(0, keepdims=True), values.shape)
    b, c = values.shape
    means = values.reshape(b, groups, c // groups).mean(-1)
    return jnp.repeat(means, c // groups, axis=-1)


def _per_pixel(values: jax.Array) -> jax.Array:
    return values[:, None, None, :]


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, (1, 2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def standardize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x - mean) / sqrt(var + 1e-5) * scale + bias, with the statistics of `x` itself.

    The mean is taken first and the variance around it: E[x^2] - E[x]^2 cancels. The gradient is
    written out because the one XLA derives passes over the map twice as often.

    Args:
      x: `[b, h, w, c]`; statistics are taken in float32 at least.
      scale, bias: `[c]`.
      groups: runs of channels with statistics of their own in each image (GroupNorm); 0 takes
        them per channel over the whole batch (BatchNorm).

    Returns:
      The result, in the type of `x`; mean and biased variance, `[b, c]`, through which no
      gradient flows.
    """
    return _forward(x, scale, bias, groups)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int) -> tuple:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = _average(_mean(wide), groups)
    var = _average(_mean(jnp.square(wide - _per_pixel(mean))), groups)
    inverse = lax.rsqrt(var + EPSILON)
    factor = scale * inverse
    y = wide * _per_pixel(factor) + _per_pixel(bias - mean * factor)
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(groups: int, residuals: tuple, cotangents: tuple) -> tuple:
    x, scale, mean, inverse = residuals
    wide = x.astype(mean.dtype)
    dy = cotangents[0].astype(mean.dtype)
    mean_dy = _mean(dy)
    mean_dy_normed = _mean(dy * (wide - _per_pixel(mean))) * inverse
    pixels = x.shape[1] * x.shape[2]
    d_scale, d_bias = pixels * mean_dy_normed.sum(0), pixels * mean_dy.sum(0)

    # dx = inverse (scale dy - average(scale dy) - normed average(scale dy normed))
    along = inverse * _average(scale * mean_dy_normed, groups)
    constant = inverse * (mean * along - _average(scale * mean_dy, groups))
    dx = dy * _per_pixel(scale * inverse) - wide * _per_pixel(inverse * along)
    return (dx + _per_pixel(constant)).astype(x.dtype), d_scale, d_bias


standardize.defvjp(_forward, _backward)
