"""Crop positions that hold the structure, drawn without rejection."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vemseg_jax.data.store.volume import UNLABELLED
from vemseg_jax.errors import InputError

STRUCTURE = 1
# Of a crop, the share that must be labelled, where the slice has crops that are: nothing is
# learned from a crop that lies in ignored or unlabelled pixels.
LABELLED_SHARE = 0.1


class Crops(NamedTuple):
    """One batch of crops, int32: `plane [b]`, `corner [b, 2]` (y, x), `symmetry [b]` in [0, 8)."""

    plane: Any
    corner: Any
    symmetry: Any


@dataclasses.dataclass(frozen=True)
class Positions:
    """A set of crop corners of one slice as runs of consecutive flat positions.

    `starts [r]` flat index of each run's first corner, `ends [r]` how many corners there are up
    to and with each run, `width` corners per row. A slice of millions of corners takes some
    thousand runs, and the k-th corner is found by bisection.
    """

    starts: np.ndarray
    ends: np.ndarray
    width: int

    @property
    def total(self) -> int:
        """How many corners the set holds."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def corner(self, k: int) -> tuple[int, int]:
        """The (y, x) of the k-th corner, `0 <= k < total`."""
        run = int(np.searchsorted(self.ends, k, side="right"))
        before = int(self.ends[run - 1]) if run else 0
        return divmod(int(self.starts[run]) + k - before, self.width)


def _positions(allowed: np.ndarray) -> Positions:
    flat = np.concatenate([[0], allowed.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    starts, stops = edges[::2], edges[1::2]
    return Positions(starts=starts, ends=np.cumsum(stops - starts), width=allowed.shape[1])


def _sum_in_window(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """The sum of `size` consecutive entries, int32, for every start along an axis."""
    shape = list(values.shape)
    shape[axis] = 1
    total = np.cumsum(values, axis, dtype=np.int32)
    total = np.concatenate([np.zeros(shape, np.int32), total], axis)
    count = values.shape[axis] - size + 1
    low = np.take(total, np.arange(count), axis)
    return np.take(total, np.arange(count) + size, axis) - low


def crop_positions(
    mask: np.ndarray, crop_size: int, *, labelled: np.ndarray | None = None
) -> tuple[Positions, Positions]:
    """Corners whose crop holds a pixel of `mask [h, w]`, and corners whose crop holds none.

    Args:
      mask: pixels of the structure, bool.
      crop_size: side of a crop, at most h and w.
      labelled: `[h, w]` bool, pixels whose label is known; None for all. Crops of which less than
        a tenth is labelled are in neither set, unless no crop of a set has twice as much. A crop
        without a labelled pixel is in none.
    """
    holds = _sum_in_window(_sum_in_window(mask, crop_size, 0) > 0, crop_size, 1) > 0
    if labelled is None or labelled.all():
        return _positions(holds), _positions(~holds)
    known = _sum_in_window(_sum_in_window(labelled, crop_size, 0), crop_size, 1)
    return _positions(_well_labelled(holds, known, crop_size)), _positions(
        _well_labelled(~holds, known, crop_size)
    )


def _well_labelled(allowed: np.ndarray, known: np.ndarray, crop_size: int) -> np.ndarray:
    """Of the corners `allowed`, those whose crop has enough of its pixels labelled (`known`)."""
    most = int(known.max(initial=0, where=allowed))
    least = max(1, min(LABELLED_SHARE * crop_size**2, most / 2))
    return allowed & (known >= least)


class CropSampler:
    """Draws batches of crops: a pure function of (seed, step).

    Each crop draws one of the structures, then one of the slices that hold it, both uniformly,
    then uniformly one of the positions whose crop holds at least one of its pixels. With
    `empty_probability` it is drawn instead from the positions without the structure, uniformly
    over labelled slices that have such positions. Where pixels are ignored or not labelled, crops
    that hardly hold labelled ones are left out (see `crop_positions`). (The reference draws
    positions until one holds structure and lets an empty one pass with this probability *per try*,
    which keeps more empty crops than it says.)
    """

    def __init__(
        self,
        labels: Iterable[np.ndarray],
        structures: tuple[str, ...],
        *,
        crop_size: int,
        batch_size: int,
        empty_probability: float,
        seed: int,
    ):
        """Indexes the positions.

        Args:
          labels: n planes `[h, w, c]` uint8, looked at one by one and not kept: 1 structure, 0
            background, 255 not labelled or ignored.
          structures: the c names, for messages.
          crop_size: side of a crop, at most h and w.
          batch_size: crops per batch.
          empty_probability: of each crop, in [0, 1).
          seed: with the step, decides everything.

        Raises:
          InputError: a structure that no slice holds.
        """
        self._batch_size, self._seed = batch_size, seed
        self._empty_probability = empty_probability
        self._holding: list[list[tuple[int, Positions]]] = [[] for _ in structures]
        self._empty: list[list[tuple[int, Positions]]] = [[] for _ in structures]
        for n, plane in enumerate(labels):
            for channel in range(len(structures)):
                self._index(n, plane[..., channel], channel, crop_size)
        for name, holding in zip(structures, self._holding, strict=True):
            if not holding:
                raise InputError(
                    f"structure {name!r} has no pixel on any training slice; label slices that "
                    "show it or drop it from --config.data.structures"
                )

    def _index(self, n: int, plane: np.ndarray, channel: int, crop_size: int) -> None:
        labelled = plane != UNLABELLED
        if not labelled.any():
            return
        holds, lacks = crop_positions(plane == STRUCTURE, crop_size, labelled=labelled)
        if holds.total:
            self._holding[channel].append((n, holds))
        if lacks.total:
            self._empty[channel].append((n, lacks))

    def __call__(self, step: int) -> Crops:
        """The crops of one step, the same whenever and wherever they are asked for."""
        rng = np.random.default_rng([self._seed, step])
        chosen = [self._draw(rng) for _ in range(self._batch_size)]
        return Crops(
            plane=np.asarray([plane for plane, _ in chosen], np.int32),
            corner=np.asarray([corner for _, corner in chosen], np.int32),
            symmetry=rng.integers(0, 8, self._batch_size, dtype=np.int32),
        )

    def _draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        channel = int(rng.integers(len(self._holding)))
        choices = self._holding[channel]
        if rng.random() < self._empty_probability and self._empty[channel]:
            choices = self._empty[channel]
        plane, positions = choices[int(rng.integers(len(choices)))]
        return plane, positions.corner(int(rng.integers(positions.total)))


class EvenSampler:
    """Draws batches of crops that visit all slices evenly: a pure function of (seed, step).

    The slices come one after the other in an order that is shuffled anew for each round, so that
    after any number of crops no slice has had two more than another; the position is uniform.
    """

    def __init__(
        self, count: int, size: Sequence[int], *, crop_size: int, batch_size: int, seed: int
    ):
        """Args as in `CropSampler`; `count` slices of `size` (h, w), at least one of them."""
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._room = [side - crop_size + 1 for side in size]

    def __call__(self, step: int) -> Crops:
        """The crops of one step, the same whenever and wherever they are asked for."""
        numbers = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        rounds = {n: self._order(n) for n in np.unique(numbers // self._count)}
        planes = [rounds[n // self._count][n % self._count] for n in numbers]
        rng = np.random.default_rng([self._seed, step, 1])
        return Crops(
            plane=np.asarray(planes, np.int32),
            corner=rng.integers(0, self._room, (self._batch_size, 2), dtype=np.int32),
            symmetry=rng.integers(0, 8, self._batch_size, dtype=np.int32),
        )

    def _order(self, number: int) -> np.ndarray:
        return np.random.default_rng([self._seed, int(number), 2]).permutation(self._count)
