"""Dice scores of segmented stacks from exact integer counts.

Every sum is a Python integer, so a volume of 6000 x 4000 x 2500 voxels (6e10) cannot overflow,
and slices are counted one at a time, so it never sits in memory.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from vemseg_jax.data.store.volume import UNLABELLED

SMOOTH_2D = 1


@dataclasses.dataclass(frozen=True)
class SliceCounts:
    """Voxels of one slice: `truth`, `predicted`, in both (`common`), and all counted (`pixels`)."""

    z: int
    truth: int
    predicted: int
    common: int
    pixels: int

    @property
    def has_structure(self) -> bool:
        """Whether the truth holds at least one voxel of the structure."""
        return self.truth > 0

    @property
    def dice_2d(self) -> float:
        """(2 common + 1) / (truth + predicted + 1); nan when the truth holds no structure."""
        if not self.has_structure:
            return math.nan
        return (2 * self.common + SMOOTH_2D) / (self.truth + self.predicted + SMOOTH_2D)


def count_slice(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    z: int = 0,
) -> SliceCounts:
    """Counts one slice.

    Args:
      truth: `[h, w]`, 0 background, 1 structure, 255 unlabelled. An unlabelled pixel is in no
        count: it is not background.
      prediction: `[h, w]`, 0 or 1.
      valid: `[h, w]` bool, False where the pixel is left out of every count; None counts all.
      z: the number of the slice, kept with the counts.

    Raises:
      ValueError: shapes differ, or there are other values than those above.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    _check(truth, prediction, valid)
    is_truth, is_predicted = truth == 1, prediction == 1
    counted = truth != UNLABELLED
    if valid is not None:
        counted &= valid
    is_truth &= counted
    is_predicted &= counted
    # count_nonzero of a bool array returns a Python int: nothing narrower takes part in a sum.
    return SliceCounts(
        z=int(z),
        truth=int(np.count_nonzero(is_truth)),
        predicted=int(np.count_nonzero(is_predicted)),
        common=int(np.count_nonzero(is_truth & is_predicted)),
        pixels=int(np.count_nonzero(counted)),
    )


def _check(truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray | None) -> None:
    shapes = {truth.shape, prediction.shape} | ({valid.shape} if valid is not None else set())
    if len(shapes) > 1:
        raise ValueError(f"truth, prediction and valid differ in shape: {sorted(shapes)}")
    for name, plane, allowed in (
        ("truth", truth, (0, 1, UNLABELLED)),
        ("prediction", prediction, (0, 1)),
    ):
        if sum(np.count_nonzero(plane == value) for value in allowed) != plane.size:
            found = np.setdiff1d(np.unique(plane), allowed)[:5].tolist()
            raise ValueError(f"{name} holds the values {found}, allowed are {allowed}")


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator; nan when the denominator is 0."""
    return numerator / denominator if denominator else math.nan


@dataclasses.dataclass
class DiceAccumulator:
    """Scores of a stack that is counted slice by slice, in any order.

    `dice_3d` pools all slices; `dice_3d_structure_slices` pools only those whose truth holds
    structure, which is what the reference of Pagano et al. 2023 reports. The second leaves out
    what is predicted in slices without structure, so it is never the smaller one.
    """

    slices: int = 0
    structure_slices: int = 0
    truth: int = 0
    predicted: int = 0
    common: int = 0
    pixels: int = 0
    predicted_in_structure_slices: int = 0
    sum_dice_2d: float = 0.0

    def add(self, counts: SliceCounts) -> None:
        """Adds one slice."""
        self.slices += 1
        self.truth += counts.truth
        self.predicted += counts.predicted
        self.common += counts.common
        self.pixels += counts.pixels
        if counts.has_structure:
            self.structure_slices += 1
            self.predicted_in_structure_slices += counts.predicted
            self.sum_dice_2d += counts.dice_2d

    @property
    def dice_3d(self) -> float:
        """2 common / (truth + predicted) over all slices, no smoothing.

        nan when both are empty: nothing was there and nothing was found, which is no evidence
        of a good or a bad segmentation.
        """
        return ratio(2 * self.common, self.truth + self.predicted)

    @property
    def dice_3d_structure_slices(self) -> float:
        """`dice_3d` over the slices whose truth holds structure; nan when there is none."""
        return ratio(2 * self.common, self.truth + self.predicted_in_structure_slices)

    @property
    def average_dice_2d(self) -> float:
        """Mean of `SliceCounts.dice_2d` over slices with structure; nan when there is none."""
        return ratio(self.sum_dice_2d, self.structure_slices)

    @property
    def precision(self) -> float:
        """Common / predicted; nan when nothing is predicted."""
        return ratio(self.common, self.predicted)

    @property
    def recall(self) -> float:
        """Common / truth; nan when there is no structure."""
        return ratio(self.common, self.truth)


def accumulate(counts: Iterable[SliceCounts]) -> DiceAccumulator:
    """The accumulator of these slices."""
    total = DiceAccumulator()
    for one in counts:
        total.add(one)
    return total


@dataclasses.dataclass(frozen=True)
class StackDice:
    """Scores of a stack in memory.

    `every_dice`: 2D Dice of each slice with structure, in order. `empty_slices`: the numbers of
    the slices whose truth holds no structure. `counts`: all slices. The rest: `DiceAccumulator`.
    """

    every_dice: tuple[float, ...]
    average_dice_2d: float
    dice_3d_structure_slices: float
    dice_3d: float
    empty_slices: tuple[int, ...]
    counts: tuple[SliceCounts, ...]

    @property
    def structure_totals(self) -> tuple[int, int, int]:
        """Truth, predicted and common voxels over the slices with structure."""
        total = accumulate(one for one in self.counts if one.has_structure)
        return total.truth, total.predicted, total.common


def stack_dice(
    truth: Sequence[np.ndarray] | np.ndarray, prediction: Sequence[np.ndarray] | np.ndarray
) -> StackDice:
    """Scores `truth` against `prediction`, both `[n, h, w]` with the values of `count_slice`."""
    if len(truth) != len(prediction):
        raise ValueError(f"truth has {len(truth)} slices, prediction has {len(prediction)}")
    counts = tuple(
        count_slice(one, other, z=z)
        for z, (one, other) in enumerate(zip(truth, prediction, strict=True))
    )
    total = accumulate(counts)
    return StackDice(
        every_dice=tuple(one.dice_2d for one in counts if one.has_structure),
        average_dice_2d=total.average_dice_2d,
        dice_3d_structure_slices=total.dice_3d_structure_slices,
        dice_3d=total.dice_3d,
        empty_slices=tuple(one.z for one in counts if not one.has_structure),
        counts=counts,
    )
