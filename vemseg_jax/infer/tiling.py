"""The sliding window of the reference: where the windows lie and how they are averaged."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.resize import resize_bilinear

# Stride of the reference's windows as a share of their size.
STRIDE_SHARE = 4


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Windows over one slice.

    `padding` is ((top, bottom), (left, right)), `shape` the padded slice `(h, w)`, `corners`
    `[n, 2]` the (y, x) of every window in the padded slice, `count` `[h, w]` how many windows
    cover each padded pixel.
    """

    kernel: int
    padding: tuple[tuple[int, int], tuple[int, int]]
    shape: tuple[int, int]
    corners: np.ndarray
    count: np.ndarray


def _axis_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Total padding split in two, the odd pixel last.

    As the reference does it: a size that fits already gets a whole stride more. Slices smaller
    than a window, which the reference cannot process, are padded to one window.
    """
    total = kernel - size if size < kernel else stride - (size - kernel) % stride
    return total // 2, total - total // 2


def plan_windows(shape: tuple[int, int], *, kernel: int, stride: int) -> WindowPlan:
    """Lays windows of `kernel` pixels at every `stride` pixels over a slice `(h, w)`."""
    padding = tuple(_axis_padding(size, kernel, stride) for size in shape)
    padded = tuple(size + sum(pad) for size, pad in zip(shape, padding, strict=True))
    axes = [np.arange(0, size - kernel + 1, stride) for size in padded]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    count = np.zeros(padded, np.uint16)
    for y, x in corners:
        count[y : y + kernel, x : x + kernel] += 1
    return WindowPlan(kernel, padding, padded, corners, count)  # type: ignore[arg-type]


def window_forward(
    apply: Callable[[jax.Array], jax.Array], *, input_size: int
) -> Callable[[jax.Array], jax.Array]:
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


def predict_plane(
    forward: Callable[[np.ndarray], jax.Array],
    image: np.ndarray,
    *,
    plan: WindowPlan,
    batch_size: int,
) -> np.ndarray:
    """Averages the probabilities of all windows over one slice.

    Args:
      forward: maps `[batch_size, kernel, kernel, 1]` float32 to `[batch_size, kernel, kernel, c]`.
      image: `[h, w]` float32, normalised.
      plan: the windows, made for this shape.
      batch_size: windows per call; the last batch is filled up so that one shape is compiled.

    Returns:
      `[h, w, c]` float32 mean probabilities.
    """
    padded = np.pad(image, plan.padding, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, (plan.kernel, plan.kernel))
    total: np.ndarray | None = None
    for start in range(0, len(plan.corners), batch_size):
        corners = plan.corners[start : start + batch_size]
        windows = np.zeros((batch_size, plan.kernel, plan.kernel, 1), np.float32)
        windows[: len(corners), ..., 0] = views[corners[:, 0], corners[:, 1]]
        prob = np.asarray(forward(windows))
        if total is None:
            total = np.zeros((*plan.shape, prob.shape[-1]), np.float32)
        for (y, x), window in zip(corners, prob, strict=False):
            total[y : y + plan.kernel, x : x + plan.kernel] += window
    assert total is not None
    total /= plan.count[..., None]
    (top, _), (left, _) = plan.padding
    return total[top : top + image.shape[0], left : left + image.shape[1]]


def to_mask(prob: np.ndarray, *, exclusive: bool = False) -> np.ndarray:
    """Decides each pixel.

    Args:
      prob: `[h, w, c]` probabilities.
      exclusive: channels exclude each other (background first).

    Returns:
      `[h, w, c]` uint8, 1 where the probability is over 0.5; or, if `exclusive`, `[h, w]` uint8
      with the number of the largest channel.
    """
    if exclusive:
        return prob.argmax(-1).astype(np.uint8)
    return (prob > 0.5).astype(np.uint8)


def structure_masks(prob: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """`[h, w, structures]` uint8 masks from `prob` `[h, w, c]`.

    With `exclusive` the channels are classes, background first, and each pixel belongs to the
    most probable one.
    """
    if not exclusive:
        return to_mask(prob)
    number = to_mask(prob, exclusive=True)[..., None]
    return (number == np.arange(1, prob.shape[-1])).astype(np.uint8)


def make_forward(model_apply: Callable, variables: dict, *, input_size: int) -> Callable:
    """Jits a network in eval mode as the `forward` of `predict_plane`.

    The weights are an argument of the compiled function, not constants inside it.
    """

    @jax.jit
    def run(weights: dict, windows: jax.Array) -> jax.Array:
        def apply(x: jax.Array) -> jax.Array:
            return model_apply(weights, x, train=False)["prob"]

        return window_forward(apply, input_size=input_size)(windows)

    weights = jax.tree.map(jnp.asarray, variables)
    return lambda windows: run(weights, windows)
