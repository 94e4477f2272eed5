"""The grey-value normalisation of the reference."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vemseg_jax.data.store.volume import Volume


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(value / dtype_max - mean) / std, with `mean` and `std` on the 0-1 scale."""

    mean: float
    std: float
    dtype_max: int

    def __call__(self, plane: Any) -> Any:
        """Normalises grey values in [0, dtype_max], an array of numpy or jax of any shape."""
        return (plane / self.dtype_max - self.mean) / self.std


def slice_statistics(plane: np.ndarray) -> tuple[float, float]:
    """Mean and unbiased standard deviation of a uint8 or uint16 slice on the 0-1 scale.

    The sums are integers and exact; rows are taken in blocks, so that no wide copy of the slice
    is made.
    """
    rows = max(1, 2**18 // plane.shape[1])
    total = squares = 0
    for start in range(0, plane.shape[0], rows):
        block = plane[start : start + rows].astype(np.uint64)
        total += int(block.sum())
        squares += int(np.square(block).sum())
    n, dtype_max = plane.size, int(np.iinfo(plane.dtype).max)
    variance = (n * squares - total * total) / (n * max(n - 1, 1))
    return total / n / dtype_max, variance**0.5 / dtype_max


def combine(
    means: Sequence[float] | np.ndarray, stds: Sequence[float] | np.ndarray, *, dtype_max: int
) -> Normalization:
    """The mean over images of each image's mean and of its unbiased standard deviation.

    Images that are constant throughout would give std 0; the least is one grey level.
    """
    std = max(float(np.mean(stds)), 1 / dtype_max)
    return Normalization(mean=float(np.mean(means)), std=std, dtype_max=dtype_max)


def of_volumes(volumes: Sequence[tuple[Volume, tuple[int, int]]]) -> Normalization:
    """By the slices of some volumes, in the range (first, one past the last) of each.

    Slices that are constant throughout show no tissue; they count only where there are no others.
    The largest grey value is that of the first volume.
    """
    stds = np.concatenate([volume.slice_std[slice(*range_)] for volume, range_ in volumes])
    means = np.concatenate([volume.slice_mean[slice(*range_)] for volume, range_ in volumes])
    counting = stds > 0 if (stds > 0).any() else stds == 0
    return combine(means[counting], stds[counting], dtype_max=volumes[0][0].dtype_max)


def of_volume(volume: Volume) -> Normalization:
    """By all slices of a volume."""
    return of_volumes([(volume, (0, volume.shape[0]))])
