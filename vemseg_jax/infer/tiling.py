"""Windows passed through a network and averaged, on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vemseg_jax.infer.windows import WindowPlan
from vemseg_jax.resize import resize_bilinear

Forward = Callable[[jax.Array], jax.Array]


def window_forward(apply: Forward, *, input_size: int) -> Forward:
    """Wraps a network so that windows are resized to `input_size` and its output back.

    `apply` maps `[b, input_size, input_size, 1]` to probabilities of that size. Windows that
    have the size already pass unchanged.
    """

    def forward(windows: jax.Array) -> jax.Array:
        size = windows.shape[1]
        if size == input_size:
            return apply(windows)
        small = resize_bilinear(windows, (input_size, input_size))
        return resize_bilinear(apply(small), (size, size))

    return forward


def make_forward(
    model_apply: Callable, variables: dict, *, input_size: int | None = None
) -> Forward:
    """Jits a network in eval mode as the `forward` of `predict_planes`.

    The weights are an argument of the compiled function, not constants inside it.

    Args:
      model_apply: the network's `apply`.
      variables: its weights.
      input_size: side of its input, to which windows are resized; None passes them as they are.
    """

    @jax.jit
    def run(weights: dict, windows: jax.Array) -> jax.Array:
        def apply(x: jax.Array) -> jax.Array:
            return model_apply(weights, x, train=False)["prob"]

        if input_size is None:
            return apply(windows)
        return window_forward(apply, input_size=input_size)(windows)

    weights = jax.tree.map(jnp.asarray, variables)
    return lambda windows: run(weights, windows)


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


@jax.jit
def _mean(total: jax.Array, weights: jax.Array) -> jax.Array:
    return total / weights[..., None]


def predict_planes(
    forward: Forward, images: np.ndarray, *, plan: WindowPlan, batch_size: int
) -> jax.Array:
    """Averages the probabilities of all windows over some slices.

    Args:
      forward: maps `[batch_size, *kernel, 1]` float32 to `[batch_size, *kernel, c]`.
      images: `[s, h, w]` float32, normalised.
      plan: the windows, made for this shape.
      batch_size: windows per call, of one slice or of several; the last batch is filled up so
        that one shape is compiled.

    Returns:
      `[s, h, w, c]` float32 mean probabilities, on the device.
    """
    padded = jnp.asarray(np.pad(images, ((0, 0), *plan.padding), mode="reflect"))
    count = len(plan.corners)
    index = np.zeros((len(images) * count, 3), np.int32)
    index[:, 0] = np.repeat(np.arange(len(images)), count)
    index[:, 1:] = np.tile(plan.corners, (len(images), 1))
    weight, total = jnp.asarray(plan.weight), None
    for start in range(0, len(index), batch_size):
        chosen = index[start : start + batch_size]
        counts = (np.arange(batch_size) < len(chosen)).astype(np.float32)
        chosen = np.resize(chosen, (batch_size, 3))
        prob = forward(_cut(padded, chosen, plan.kernel))
        if total is None:
            total = jnp.zeros((len(images), *plan.shape, prob.shape[-1]), jnp.float32)
        total = _add(total, prob, chosen, weight, counts)
    assert total is not None
    (top, _), (left, _) = plan.padding
    h, w = images.shape[1:]
    inner = np.s_[top : top + h, left : left + w]
    return _mean(total[:, inner[0], inner[1]], jnp.asarray(plan.total[inner]))


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
