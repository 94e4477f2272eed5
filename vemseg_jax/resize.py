"""Bilinear resizing as the reference systems do it, for images, masks and feature maps."""

from collections.abc import Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np


@lru_cache(maxsize=64)
def _axis_weights(size: int, new_size: int) -> np.ndarray:
    """Half-pixel-centre linear interpolation along one axis: a matrix [new_size, size]."""
    centre = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    centre = np.clip(centre, 0, size - 1)
    low = np.minimum(np.floor(centre).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    fraction = centre - low
    weights = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(weights, (rows, low), 1 - fraction)
    np.add.at(weights, (rows, high), fraction)
    return weights


def resize_bilinear(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Resizes `x: [..., h, w, c]` to `[..., *shape, c]`, half-pixel centres, no antialiasing.

    The convention of `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`:
    shrinking by 4 is the mean of the two middle pixels of every four, in each axis. Edge pixels
    are repeated beyond the border.
    """
    rows = jnp.asarray(_axis_weights(x.shape[-3], shape[0]), x.dtype)
    cols = jnp.asarray(_axis_weights(x.shape[-2], shape[1]), x.dtype)
    x = jnp.einsum("ih,...hwc->...iwc", rows, x, precision="highest")
    return jnp.einsum("jw,...iwc->...ijc", cols, x, precision="highest")


def shrink(x: jax.Array, factor: int) -> jax.Array:
    """`x: [s, h, w]` to `[s, h / factor, w / factor]` as `resize_bilinear` does; sizes that divide.

    Args:
      x: floating point.
      factor: even: the mean of the two middle pixels of every so many, in each axis.
    """
    a, b = factor // 2 - 1, factor // 2
    x = (x[:, a::factor] + x[:, b::factor]) * 0.5
    return (x[:, :, a::factor] + x[:, :, b::factor]) * 0.5


def enlarge(x: jax.Array, factor: int, shape: Sequence[int]) -> jax.Array:
    """Enlarges `x: [b, h, w, c]` to `[b, *shape, c]`, linear between the centres of its pixels.

    These lie at factor * i + (factor - 1) / 2; beyond the first and the last of them the edge goes
    on. `resize_bilinear` where `shape` is `factor` times as large, written with shifts.
    """
    for axis, size in zip((1, 2), shape, strict=True):
        x = _enlarge_axis(x, factor, axis, size)
    return x


def _enlarge_axis(x: jax.Array, factor: int, axis: int, size: int) -> jax.Array:
    before, after = _neighbours(x, axis)
    phases = []
    for k in range(factor):
        away = (k - (factor - 1) / 2) / factor
        phases.append((1 - abs(away)) * x + abs(away) * (before if away < 0 else after))
    fine = jnp.stack(phases, axis + 1)
    fine = fine.reshape(*x.shape[:axis], factor * x.shape[axis], *x.shape[axis + 1 :])
    missing = size - fine.shape[axis]
    if missing > 0:
        last = jax.lax.slice_in_dim(fine, fine.shape[axis] - 1, fine.shape[axis], axis=axis)
        fine = jnp.concatenate([fine, *[last] * missing], axis)
    return jax.lax.slice_in_dim(fine, 0, size, axis=axis)


def resize_nearest(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Resizes `x: [b, h, w, c]` to `[b, *shape, c]`, nearest neighbour.

    Output i shows input floor(i * float32(size / new_size)), as torch computes it; products with
    0/1 matrices, whose gradient is no scatter.
    """
    for axis, new_size in zip((1, 2), shape, strict=True):
        size = x.shape[axis]
        scale = np.float32(size) / np.float32(new_size)
        index = np.minimum((np.arange(new_size, dtype=np.float32) * scale).astype(int), size - 1)
        matrix = jnp.asarray(np.eye(size)[index], x.dtype)
        letters = "ih,bhwc->biwc" if axis == 1 else "jw,biwc->bijc"
        x = jnp.einsum(letters, matrix, x, precision="highest")
    return x


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The values before and after each one along an axis, the edge repeated beyond the border."""
    n = x.shape[axis]
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    last = jax.lax.slice_in_dim(x, n - 1, n, axis=axis)
    previous = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    following = jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
    return previous, following


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    shape = even.shape
    out = jnp.stack([even, odd], axis + 1)
    return out.reshape(*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def _upsample_axis(x: jax.Array, axis: int) -> jax.Array:
    """Doubles one axis with the end points of both grids aligned.

    Output 2k lies k / (2n - 1) before input k, output 2k + 1 lies (n - 1 - k) / (2n - 1) after
    it. Written with shifts instead of a gather, whose gradient is a slow scatter.
    """
    n = x.shape[axis]
    if n == 1:
        return jnp.repeat(x, 2, axis=axis)
    shape = [1] * x.ndim
    shape[axis] = n
    k = np.arange(n)
    before = jnp.asarray((k / (2 * n - 1)).reshape(shape), x.dtype)
    after = jnp.asarray(((n - 1 - k) / (2 * n - 1)).reshape(shape), x.dtype)
    previous, following = _neighbours(x, axis)
    return _interleave(x + before * (previous - x), x + after * (following - x), axis)


def _upsample_axis_half_pixel(x: jax.Array, axis: int) -> jax.Array:
    previous, following = _neighbours(x, axis)
    return _interleave(0.75 * x + 0.25 * previous, 0.75 * x + 0.25 * following, axis)


def upsample2x(x: jax.Array) -> jax.Array:
    """Doubles `x: [b, h, w, c]` to `[b, 2h, 2w, c]`, bilinear with half-pixel centres.

    `resize_bilinear` at factor 2, written with shifts: every pixel is 3/4 of the nearest one and
    1/4 of the next, in each axis.
    """
    return _upsample_axis_half_pixel(_upsample_axis_half_pixel(x, 2), 1)


def repeat2d(x: jax.Array, factors: tuple[int, int]) -> jax.Array:
    """Enlarges `x: [b, h, w, c]` by whole factors, each pixel repeated (nearest neighbour).

    A broadcast: its gradient is a sum over blocks, where a gather's would be a scatter.
    """
    b, h, w, c = x.shape
    rows, cols = factors
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, rows, w, cols, c))
    return x.reshape(b, h * rows, w * cols, c)


def upsample2x_aligned(x: jax.Array) -> jax.Array:
    """Doubles `x: [b, h, w, c]` to `[b, 2h, 2w, c]`, bilinear with `align_corners=True`.

    The up-sampling of the reference U-Nets. It depends on the size of the map: a network that
    uses it is not exactly translation-equivariant.
    """
    # Columns first, while there are few rows: forward and backward take half the time on a CPU.
    return _upsample_axis(_upsample_axis(x, 2), 1)
