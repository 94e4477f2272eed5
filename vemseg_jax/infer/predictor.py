"""From slices as stored to probabilities, by the method that was chosen."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.data.preprocessing import FACTOR
from vemseg_jax.errors import InputError
from vemseg_jax.infer import tiling, windows
from vemseg_jax.infer.trained import Trained, prediction_apply
from vemseg_jax.infer.windows import WindowPlan
from vemseg_jax.models import registry

WINDOW, WHOLE = "window", "whole"
METHODS = (WINDOW, WHOLE)
# What flips are averaged over: axes of `[s, h, w]`.
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))


@dataclasses.dataclass(frozen=True)
class Method:
    """How a slice passes through the network.

    Attributes:
      name: "window", the reference's sliding window; "whole", each slice in one pass at training
        scale, or for networks whose attention or pooling spans the window in the fewest windows
        that keep every pixel an eighth of a window from an edge.
      overlap: share of a window that the next one covers, of "window"; the reference's is 0.75.
      blending: "uniform" or "gaussian", of "window".
      flips: averages over the slice and its three mirror images.
    """

    name: str = WINDOW
    overlap: float = 1 - 1 / windows.STRIDE_SHARE
    blending: str = windows.UNIFORM
    flips: bool = False

    def check(self) -> None:
        """Raises InputError for values that cannot be used."""
        for flag, found, allowed in (
            ("method", self.name, METHODS),
            ("blending", self.blending, windows.BLENDINGS),
        ):
            if found not in allowed:
                raise InputError(f"--{flag}={found}: must be one of {', '.join(allowed)}")
        if not 0 <= self.overlap <= 0.9:
            raise InputError(f"--overlap={self.overlap:g}: must be a share in [0, 0.9] of a window")
        default = Method()
        if self.name == WHOLE and (self.overlap, self.blending) != (
            default.overlap,
            default.blending,
        ):
            raise InputError("--overlap and --blending belong to --method=window; leave them out")


def describe(method: Method, trained: Trained) -> str:
    """The method in a few words, for the log and the result."""
    crop = trained.description.crop_size
    if method.name == WINDOW:
        stride = _stride(method, crop)
        text = f"windows of {crop} at every {stride} training-scale pixels, {method.blending}"
    elif registry.is_equivariant(trained.description.model):
        text = "whole slices at training scale"
    else:
        text = f"fewest windows of {crop} training-scale pixels"
    return text + (", averaged over 4 flips" if method.flips else "")


def _stride(method: Method, kernel: int) -> int:
    return max(1, round(kernel * (1 - method.overlap)))


def make_plan(
    method: Method, trained: Trained, *, shape: tuple[int, int], scale: int
) -> WindowPlan:
    """Windows over slices `(h, w)` whose pixels are `scale` times finer than the network's."""
    kernel = trained.description.crop_size * scale
    if method.name == WINDOW:
        return windows.plan_windows(
            shape, kernel=kernel, stride=_stride(method, kernel), blending=method.blending
        )
    if registry.is_equivariant(trained.description.model):
        return windows.plan_whole(shape)
    return windows.plan_tiles(shape, kernel=kernel)


Predictor = Callable[[np.ndarray], jax.Array]


def make_predictor(
    trained: Trained,
    method: Method,
    *,
    shape: tuple[int, int],
    scale: int,
    dtype_max: int,
    batch_size: int,
) -> Predictor:
    """A function from raw slices `[s, h, w]` to probabilities `[s, h, w, c]` on the device.

    Args:
      trained: network and description.
      method: see `Method`.
      shape: (h, w) of the slices.
      scale: the slices' pixels per network pixel: 1 at training scale, or the network's
        `downsample` at full resolution ("window" only).
      dtype_max: the largest grey value of the slices' type.
      batch_size: windows per call.
    """
    description = trained.description
    plan = make_plan(method, trained, shape=shape, scale=scale)
    model = registry.create_model(description.model, dtype=description.precision)
    forward = tiling.make_forward(
        prediction_apply(model, description),
        trained.variables,
        input_size=description.crop_size if scale != 1 else None,
    )
    normalization = dataclasses.replace(description.normalization, dtype_max=dtype_max)

    def predict(planes: np.ndarray) -> jax.Array:
        images = normalization(planes.astype(np.float32))
        most = len(images) * len(plan.corners)
        total = None
        for axes in FLIPS if method.flips else FLIPS[:1]:
            prob = tiling.predict_planes(
                forward, np.flip(images, axes), plan=plan, batch_size=min(batch_size, most)
            )
            prob = jnp.flip(prob, axes)
            total = prob if total is None else total + prob
        assert total is not None
        return total / len(FLIPS) if method.flips else total

    return predict


def enlarge(prob: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Probabilities `[s, h, w, c]` at training scale to full resolution `[s, *shape, c]`.

    Linear between the centres of training pixels, which lie at 4i + 1.5; beyond the first and the
    last of them the edge goes on.
    """
    for axis, size in zip((1, 2), shape, strict=True):
        prob = _enlarge_axis(prob, axis, size)
    return prob


def _enlarge_axis(x: jax.Array, axis: int, size: int) -> jax.Array:
    before = jnp.concatenate([_part(x, axis, 0, 1), _part(x, axis, 0, -1)], axis)
    after = jnp.concatenate([_part(x, axis, 1, None), _part(x, axis, -1, None)], axis)
    phases = []
    for k in range(FACTOR):
        away = (k - 1.5) / FACTOR
        other = before if away < 0 else after
        phases.append((1 - abs(away)) * x + abs(away) * other)
    fine = jnp.stack(phases, axis + 1)
    fine = fine.reshape(*x.shape[:axis], FACTOR * x.shape[axis], *x.shape[axis + 1 :])
    missing = size - fine.shape[axis]
    if missing > 0:
        last = _part(fine, axis, -1, None)
        fine = jnp.concatenate([fine, *[last] * missing], axis)
    return _part(fine, axis, 0, size)


def _part(x: jax.Array, axis: int, start: int, stop: int | None) -> jax.Array:
    """`x[start:stop]` along an axis."""
    return x[(slice(None),) * axis + (slice(start, stop),)]
