"""From slices as stored to probabilities, by the method that was chosen."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.errors import InputError
from vemseg_jax.infer import tiling, windows
from vemseg_jax.infer.trained import Trained, prediction_apply
from vemseg_jax.infer.windows import Planner, WindowPlan
from vemseg_jax.models import registry

WINDOW, WHOLE = "window", "whole"
METHODS = (WINDOW, WHOLE)


@dataclasses.dataclass(frozen=True)
class Method:
    """How a slice passes through the network.

    Attributes:
      name: "window", the reference's sliding window; "whole", each slice in one pass at training
        scale, or for networks whose attention or pooling spans the window in the fewest windows
        that keep every pixel an eighth of a window from an edge.
      overlap: share of a window that the next one covers, of "window"; the reference's is 0.75.
      blending: "uniform" or "gaussian", of "window".
      flips: averages over each window and its three mirror images.
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
    elif registry.is_local(trained.description.model):
        text = "whole slices at training scale"
    else:
        text = f"fewest windows of {crop} training-scale pixels"
    return text + (", averaged over 4 flips" if method.flips else "")


def _stride(method: Method, kernel: int) -> int:
    return max(1, round(kernel * (1 - method.overlap)))


def make_planner(
    method: Method, trained: Trained, *, shape: tuple[int, int], scale: int, part: tuple[int, int]
) -> Planner:
    """Windows over slices `(h, w)` whose pixels are `scale` times finer than the network's.

    `part` is what a local network takes at once of a slice.
    """
    crop = trained.description.crop_size
    if method.name == WINDOW:
        return windows.plan_windows(
            shape,
            kernel=crop * scale,
            stride=_stride(method, crop) * scale,
            blending=method.blending,
        )
    if registry.is_local(trained.description.model):
        return windows.plan_whole(shape, part=part)
    return windows.plan_tiles(shape, kernel=crop * scale)


# From slices `[s, h, w]`, the plan's `source`, to probabilities `[s, h, w, c]` of its box; with
# the normalisation of grey values, or None of slices that are normalised.
Predictor = Callable[[np.ndarray, WindowPlan, Normalization | None], jax.Array]


def make_predictor(
    trained: Trained,
    method: Method,
    *,
    scale: int,
    batch_size: int,
    both: bool = False,
) -> Predictor:
    """A function from slices, a plan and a normalisation to probabilities on the device.

    Args:
      trained: network and description.
      method: see `Method`.
      scale: the slices' pixels per network pixel: 1 at training scale, or the network's
        `downsample` at full resolution ("window" only).
      batch_size: windows per call.
      both: of two networks, the channels of the first and then those of the second.
    """
    description = trained.description
    model = registry.create_model(description.model, dtype=description.precision)
    forward = tiling.make_forward(
        prediction_apply(model, description, both=both),
        trained.variables,
        flips=method.flips,
        scale=scale,
    )

    def predict(
        planes: np.ndarray, plan: WindowPlan, normalization: Normalization | None
    ) -> jax.Array:
        return tiling.predict_planes(
            forward,
            planes,
            plan=plan,
            batch_size=min(batch_size, len(planes) * len(plan.corners)),
            normalization=normalization,
            scale=scale,
        )

    return predict
