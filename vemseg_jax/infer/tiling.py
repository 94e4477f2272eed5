"""Windows passed through a network and averaged, on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.infer.windows import Box, Lines, WindowPlan
from vemseg_jax.resize import enlarge, shrink

Forward = Callable[[jax.Array], jax.Array]
# Axes of `[b, h, w, c]` that are mirrored.
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))


def make_forward(
    model_apply: Callable, variables: dict, *, flips: bool = False, scale: int = 1
) -> Forward:
    """Jits a network in eval mode as the `forward` of `predict_planes`.

    The weights are an argument of the compiled function, not constants inside it.

    Args:
      model_apply: the network's `apply`.
      variables: its weights.
      flips: averages over each window and its three mirror images.
      scale: what comes out is enlarged by so much, each window by itself, as the reference does.
    """

    @jax.jit
    def run(weights: dict, windows: jax.Array) -> jax.Array:
        total = None
        for axes in FLIPS if flips else FLIPS[:1]:
            prob = model_apply(weights, jnp.flip(windows, axes), train=False)["prob"]
            prob = jnp.flip(prob, axes)
            total = prob if total is None else total + prob
        assert total is not None
        mean = total / len(FLIPS) if flips else total
        if scale == 1:
            return mean
        return enlarge(mean, scale, (scale * mean.shape[1], scale * mean.shape[2]))

    weights = jax.tree.map(jnp.asarray, variables)
    return lambda windows: run(weights, windows)


@functools.partial(jax.jit, static_argnames=("normalization", "scale"))
def _prepare(planes: jax.Array, normalization: Normalization | None, scale: int) -> jax.Array:
    """Raw slices `[s, h, w]` to what the windows are cut from, `[s, h / scale, w / scale]`."""
    images = planes.astype(jnp.float32)
    if normalization is not None:
        images = normalization(images)
    return images if scale == 1 else shrink(images, scale)


@functools.partial(jax.jit, static_argnames="kernel")
def _cut(planes: jax.Array, index: jax.Array, kernel: tuple[int, int]) -> jax.Array:
    """`[s, h, w]`, `[b, 3]` (slice, y, x) -> `[b, *kernel, 1]`."""

    def one(where: jax.Array) -> jax.Array:
        return lax.dynamic_slice(planes, (where[0], where[1], where[2]), (1, *kernel))[0]

    return jax.vmap(one)(index)[..., None]


@functools.partial(jax.jit, donate_argnums=0)
def _add(
    total: jax.Array, prob: jax.Array, index: jax.Array, weight: jax.Array, counts: jax.Array
) -> jax.Array:
    """Adds windows `[b, *kernel, c]` to `total` `[s, h, w, c]`, one after the other.

    `counts [b]` is 0 for the windows that only fill up a batch.
    """
    for b in range(prob.shape[0]):
        start = (index[b, 0], index[b, 1], index[b, 2], jnp.int32(0))
        window = (prob[b] * (weight * counts[b])[..., None])[None]
        there = lax.dynamic_slice(total, start, window.shape)
        total = lax.dynamic_update_slice(total, there + window, start)
    return total


@functools.partial(jax.jit, static_argnames="inner")
def _mean(total: jax.Array, sums: Lines, inner: Box) -> jax.Array:
    (y0, y1), (x0, x1) = inner
    weights = sums[0][y0:y1, None] * sums[1][x0:x1]
    return total[:, y0:y1, x0:x1] / weights[..., None]


def predict_planes(
    forward: Forward,
    images: np.ndarray,
    *,
    plan: WindowPlan,
    batch_size: int,
    normalization: Normalization | None = None,
    scale: int = 1,
) -> jax.Array:
    """Averages the probabilities of all windows over a box of some slices.

    Args:
      forward: maps `[batch_size, h, w, 1]` float32 to `[batch_size, *kernel, c]`.
      images: `[s, h, w]`, the plan's `source` of each slice, any type.
      plan: the windows.
      batch_size: windows per call, of one slice or of several; the last batch is filled up so
        that one shape is compiled.
      normalization: of the grey values; None if `images` are normalised.
      scale: pixels of `images` per pixel that `forward` takes, in each axis. Slices are shrunk
        once, not window by window; kernel and stride must be multiples of it.

    Returns:
      `[s, h, w, c]` float32 mean probabilities of the plan's box, on the device.
    """
    padded = np.pad(images, ((0, 0), *plan.padding), mode="reflect")
    planes = _prepare(padded, normalization, scale)
    kernel = (plan.kernel[0] // scale, plan.kernel[1] // scale)
    count = len(plan.corners)
    index = np.zeros((len(images) * count, 3), np.int32)
    index[:, 0] = np.repeat(np.arange(len(images)), count)
    index[:, 1:] = np.tile(plan.corners, (len(images), 1))
    weight, total = jnp.asarray(plan.weight), None
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        counts = (np.arange(batch_size) < len(chosen)).astype(np.float32)
        chosen = np.resize(chosen, (batch_size, 3))
        prob = forward(_cut(planes, chosen // np.array((1, scale, scale), np.int32), kernel))
        if total is None:
            total = jnp.zeros((len(images), *plan.shape, prob.shape[-1]), jnp.float32)
        total = _add(total, prob, chosen, weight, counts)
    assert total is not None
    return _mean(total, plan.sums, plan.inner)


def to_mask(prob: jax.Array, *, exclusive: bool = False) -> jax.Array:
    """Decides each pixel.

    Args:
      prob: `[..., c]` probabilities.
      exclusive: channels exclude each other (background first).

    Returns:
      `[..., c]` uint8, 1 where the probability is over 0.5; or, if `exclusive`, `[...]` uint8
      with the number of the largest channel.
    """
    if exclusive:
        return prob.argmax(-1).astype(jnp.uint8)
    return (prob > 0.5).astype(jnp.uint8)


def structure_masks(prob: jax.Array, *, exclusive: bool) -> jax.Array:
    """`[..., structures]` uint8 masks from `prob` `[..., c]`.

    With `exclusive` the channels are classes, background first, and each pixel belongs to the
    most probable one.
    """
    if not exclusive:
        return to_mask(prob)
    number = to_mask(prob, exclusive=True)[..., None]
    return (number == np.arange(1, prob.shape[-1])).astype(jnp.uint8)
