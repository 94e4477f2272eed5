"""Boundary and distance targets, made from masks inside the jitted step."""

import jax
import jax.numpy as jnp
from jax import lax

# tan(22.5 degrees) in the fixed-point arithmetic of Canny's implementation in OpenCV.
TAN_22 = 13573
FIXED_POINT = 15


def _shifted(x: jax.Array, dy: int, dx: int, *, edge: bool) -> jax.Array:
    """`out[..., i, j] = x[..., i + dy, j + dx]`; beyond the border the edge's value or 0."""
    h, w = x.shape[-2:]
    padding = [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)]
    padded = jnp.pad(x, padding, mode="edge") if edge else jnp.pad(x, padding)
    return padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]


def _sobel(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Derivatives along x and y of `[..., h, w]` int32, edges repeated."""

    def at(dy: int, dx: int) -> jax.Array:
        return _shifted(mask, dy, dx, edge=True)

    right, left = at(-1, 1) + at(1, 1), at(-1, -1) + at(1, -1)
    lower, upper = at(1, -1) + at(1, 1), at(-1, -1) + at(-1, 1)
    return right - left + 2 * (at(0, 1) - at(0, -1)), lower - upper + 2 * (at(1, 0) - at(-1, 0))


def _canny(mask: jax.Array) -> jax.Array:
    """Edges of 0/1 masks `[..., h, w]` int32, as bool.

    Canny with thresholds 0 and 1 on |dx| + |dy|. Both derivatives are odd exactly when an odd
    number of the four corners is set, so their sum is even: no pixel lies between the
    thresholds, and what survives the thinning is an edge without tracing.
    """
    dx, dy = _sobel(mask)
    size = jnp.abs(dx) + jnp.abs(dy)

    def beside(row: int, column: int) -> jax.Array:
        return _shifted(size, row, column, edge=False)

    x, y = jnp.abs(dx) * TAN_22, jnp.abs(dy) << FIXED_POINT
    flat, steep = y < x, y > x + (jnp.abs(dx) << (FIXED_POINT + 1))
    # Ties go to the pixel further left or up; on diagonals neither of two equals survives.
    across = (size > beside(0, -1)) & (size >= beside(0, 1))
    along = (size > beside(-1, 0)) & (size >= beside(1, 0))
    falling = (size > beside(-1, -1)) & (size > beside(1, 1))
    rising = (size > beside(-1, 1)) & (size > beside(1, -1))
    diagonal = jnp.where((dx ^ dy) < 0, rising, falling)
    return (size > 0) & jnp.where(flat, across, jnp.where(steep, along, diagonal))


def _channels_first(mask: jax.Array) -> jax.Array:
    return jnp.moveaxis(mask, -1, 1)


def boundary_target(mask: jax.Array) -> jax.Array:
    """The outline of a mask: Canny's edges, dilated once by a 3 x 3 cross.

    Equal pixel for pixel to `dilate(Canny(mask, 0, 1), cross)` of OpenCV, which the paper used.

    Args:
      mask: `[b, h, w, c]`, 0 or 1, of any type; each channel has its own outline.

    Returns:
      `[b, h, w, c]` float32, 0 or 1.
    """
    edges = _canny(_channels_first(mask).astype(jnp.int32))
    thick = edges
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        thick = thick | _shifted(edges, dy, dx, edge=False)
    return jnp.moveaxis(thick, 1, -1).astype(jnp.float32)


def _column_distance(background: jax.Array) -> jax.Array:
    """Distance to the nearest background pixel of the same column; h + w without any."""
    h, w = background.shape[-2:]
    row = jnp.arange(h, dtype=jnp.int32)[:, None]
    far, axis = h + w, background.ndim - 2
    above = lax.cummax(jnp.where(background, row, -far), axis=axis)
    below = lax.cummin(jnp.where(background, row, h + far), axis=axis, reverse=True)
    return jnp.minimum(jnp.minimum(row - above, below - row), far)


def squared_distance(mask: jax.Array) -> jax.Array:
    """Squared Euclidean distance of every pixel to the nearest background, exact.

    First along columns, then along rows the minimum of (x - x')^2 + column distance(x')^2. Only
    offsets up to the largest distance found so far can still lower any of them, so the loop ends
    there. Source: Felzenszwalb and Huttenlocher 2012, with a direct search for the envelope.

    Args:
      mask: `[..., h, w]`, 0 for background.

    Returns:
      int32, same shape; 0 throughout an image that has no background.
    """
    background = mask == 0
    has_background = background.any((-2, -1), keepdims=True)
    start = jnp.where(has_background, jnp.square(_column_distance(background)), 0)
    width = mask.shape[-1]
    far = jnp.iinfo(jnp.int32).max // 2
    padding = [(0, 0)] * (mask.ndim - 1) + [(width, width)]
    padded = jnp.pad(start, padding, constant_values=far)

    def can_improve(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        offset, nearest = carry
        return (offset < width) & (offset * offset < nearest.max())

    def widen(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        offset, nearest = carry
        left = lax.dynamic_slice_in_dim(padded, width - offset, width, axis=-1)
        right = lax.dynamic_slice_in_dim(padded, width + offset, width, axis=-1)
        candidate = jnp.minimum(left, right) + offset * offset
        return offset + 1, jnp.minimum(nearest, candidate)

    return lax.while_loop(can_improve, widen, (jnp.int32(1), start))[1]


def distance_target(mask: jax.Array) -> jax.Array:
    """Euclidean distance to the background, scaled to [0, 1] in each crop.

    The minimum of the crop becomes 0 and its maximum 1, as the paper did with OpenCV's exact
    transform. A crop without background has no defined distance (the reference yields noise);
    here it is 0, as it is in a crop without foreground.

    Args:
      mask: `[b, h, w, c]`, 0 or 1, of any type; each channel has its own distances.

    Returns:
      `[b, h, w, c]` float32 in [0, 1].
    """
    distance = jnp.sqrt(squared_distance(_channels_first(mask)).astype(jnp.float32))
    low = distance.min((-2, -1), keepdims=True)
    span = distance.max((-2, -1), keepdims=True) - low
    scaled = (distance - low) / jnp.where(span > 0, span, 1)
    return jnp.moveaxis(scaled, 1, -1)
