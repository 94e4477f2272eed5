"""The grey-value normalisation of the reference."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Array = TypeVar("Array")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(value / dtype_max - mean) / std, with `mean` and `std` on the 0-1 scale."""

    mean: float
    std: float
    dtype_max: int

    def __call__(self, plane: Array) -> Array:
        """Normalises floating-point grey values in [0, dtype_max]; any shape."""
        return (plane / self.dtype_max - self.mean) / self.std  # type: ignore[operator]


def plane_statistics(plane: np.ndarray, dtype_max: int) -> tuple[float, float]:
    """Mean and unbiased standard deviation of one image on the 0-1 scale, in float64.

    From the histogram: exact, and without a float copy of the slice.
    """
    counts = np.bincount(plane.ravel(), minlength=dtype_max + 1).astype(np.float64)
    values = np.arange(len(counts)) / dtype_max
    mean = float(counts @ values / plane.size)
    variance = float(counts @ np.square(values - mean)) / max(plane.size - 1, 1)
    return mean, variance**0.5


def combine(means: Sequence[float], stds: Sequence[float], *, dtype_max: int) -> Normalization:
    """The mean over images of each image's mean and of its unbiased standard deviation.

    Images that are constant throughout would give std 0; the least is one grey level.
    """
    std = max(float(np.mean(stds)), 1 / dtype_max)
    return Normalization(mean=float(np.mean(means)), std=std, dtype_max=dtype_max)
