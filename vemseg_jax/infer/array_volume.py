"""An array in memory as the images of a volume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store.downsample import downsample_image, downsampled_size
from vemseg_jax.data.store.normalization import slice_statistics
from vemseg_jax.data.store.volume import DTYPE_MAX, FULL, TRAINING, Volume, array_path
from vemseg_jax.errors import InputError

# What messages call it.
NAME = Path("the stack")
_WHAT = "give grey values as a numpy array of uint8 or uint16"


class ArrayVolume(Volume):
    """The images of a volume in memory: what conversion of the same slices would store.

    Attributes: those of `Volume`; there are no labels and no files.
    """

    def __init__(
        self, stack: np.ndarray, *, voxel_size: tuple[float, float, float], downsample: int
    ):
        self.path, self.source = NAME, ""
        z, y, x = stack.shape
        self.shape, self.voxel_size, self.downsample = (z, y, x), voxel_size, downsample
        self.dtype, self.dtype_max = stack.dtype, DTYPE_MAX[stack.dtype.name]
        self.slice_names = tuple(map(str, range(z)))
        statistics = np.array([slice_statistics(plane) for plane in stack])
        self.slice_mean, self.slice_std = statistics[:, 0], statistics[:, 1]
        self.planes = {array_path(FULL, downsample): stack}
        if downsample != 1:
            coarse = np.stack([downsample_image(plane) for plane in stack])
            self.planes[array_path(TRAINING, downsample)] = coarse

    @property
    def label_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def pixels(self, level: str) -> np.ndarray:
        """The image `[z, y, x]`, `dtype`, of a level."""
        return self.planes[array_path(level, self.downsample)]

    def image(self, level: str) -> ts.TensorStore:
        """As `pixels`, as tensorstore."""
        return ts.array(self.pixels(level))


def checked_stack(stack: Any) -> np.ndarray:
    """The stack as an array `[z, y, x]` of uint8 or uint16, a single slice `[y, x]` as one of them.

    Raises:
      InputError: it has another type or number of dimensions, or nothing in it.
    """
    if isinstance(stack, str | Path):
        raise InputError(
            f"stack {str(stack)!r}: a path; {_WHAT}, or use vemseg_jax.convert and"
            " vemseg_jax.predict for files"
        )
    array = np.asarray(stack)
    if array.dtype.name not in DTYPE_MAX:
        raise InputError(f"stack of type {array.dtype}: {_WHAT}{_advice(array.dtype)}")
    if array.ndim not in (2, 3):
        raise InputError(
            f"stack of shape {array.shape}: give [z, y, x], or [y, x] for one slice, without axes"
            " for colours or time"
        )
    array = array[None] if array.ndim == 2 else array
    if array.shape[0] < 1 or min(array.shape[1:]) < 1:
        raise InputError(f"stack of shape {array.shape}: empty; give at least one slice")
    # In the byte order of this machine.
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _advice(dtype: np.dtype) -> str:
    if dtype.kind == "b":
        return "; this is a mask"
    if np.issubdtype(dtype, np.floating):
        return (
            "; for example np.round(np.clip((stack - low) / (high - low), 0, 1) * 65535)"
            ".astype(np.uint16), where low becomes black and high white"
        )
    if np.issubdtype(dtype, np.signedinteger):
        return "; for int16, (stack.astype(np.int32) + 32768).astype(np.uint16) keeps all values"
    return ""


def checked_voxel_size(voxel_size: Sequence[float], *, ndim: int) -> tuple[float, float, float]:
    """The voxel size zyx in nm; of a single slice, `ndim` 2, (y, x) will do.

    Raises:
      InputError: anything but positive lengths, as many as there are axes.
    """
    wanted = "(z, y, x)" if ndim == 3 else "(z, y, x) or (y, x)"
    message = f"voxel_size={voxel_size!r}: give {wanted} in nm, such as (50, 4, 4)"
    try:
        sizes = [float(size) for size in voxel_size]
    except (TypeError, ValueError):
        raise InputError(message) from None
    if ndim == 2 and len(sizes) == 2:
        sizes = [sizes[0], *sizes]
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise InputError(message)
    return sizes[0], sizes[1], sizes[2]


def is_large_enough(shape: tuple[int, ...], downsample: int) -> bool:
    """Whether a training pixel is left of slices of a stack `[z, y, x]`."""
    return downsample == 1 or min(downsampled_size(n) for n in shape[1:]) >= 1
