"""The second reading of the slabs: surfaces, overlaps and shapes of the objects found."""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from vemseg_jax.data.store.volume import UNLABELLED
from vemseg_jax.measure.components import Components
from vemseg_jax.measure.meshes import ObjectGrid
from vemseg_jax.measure.surface import FIRST_ID, UNLABELLED_ID, CrossingCounter, Directions

Finished = Callable[[int, list[ObjectGrid]], None]


class ObjectReader:
    """Takes the slabs of one structure again, in order.

    Args:
      components: what the first reading found.
      directions: for the surface.
      plane: `(h, w)`.
      voxel_size: zyx at the level.
      cells: of the grids that every object is collected on; one grid an entry.
      finished: called with the row of an object and its grids once it has been read whole.
    """

    def __init__(
        self,
        components: Components,
        *,
        directions: Directions,
        plane: tuple[int, int],
        voxel_size: Sequence[float],
        cells: Sequence[int],
        finished: Finished,
    ):
        self._components, self._finished = components, finished
        self._voxel_size, self._cells = voxel_size, cells
        self._directions = directions
        self._counter = CrossingCounter(directions, objects=len(components), plane=plane)
        self._grids: dict[int, list[ObjectGrid]] = {}
        self._z, self._slabs = 0, 0

    def number(self, slab: np.ndarray) -> np.ndarray:
        """Ids `[n, h, w]` uint32 of the next slab `[n, h, w]` uint8; row + 1 for objects, else 0.

        Takes the surface of the slab along.
        """
        ids = self._components.ids(slab, self._slabs)
        for plane, labels in zip(ids, slab, strict=True):
            shifted = np.where(plane > 0, plane + np.uint32(FIRST_ID - 1), np.uint32(0))
            shifted[labels == UNLABELLED] = UNLABELLED_ID
            self._counter.add(shifted)
        return ids

    def collect(self, ids: np.ndarray) -> None:
        """Adds the ids that `number` gave to the grids, and hands over what is complete."""
        table, z, stop = self._components.table, self._z, self._z + len(ids)
        rows = np.flatnonzero((table.low[:, 0] < stop) & (table.high[:, 0] > z))
        for row in rows.tolist():
            low, high = table.low[row], table.high[row]
            first, last = max(int(low[0]), z), min(int(high[0]), stop)
            box = ids[first - z : last - z, low[1] : high[1], low[2] : high[2]]
            mask = box == row + 1
            for grid in self._grids.setdefault(row, self._new_grids(row)):
                grid.add(mask, z=first)
            if high[0] <= stop:
                self._finished(row, self._grids.pop(row))
        self._z, self._slabs = stop, self._slabs + 1

    def _new_grids(self, row: int) -> list[ObjectGrid]:
        table = self._components.table
        return [
            ObjectGrid(table.low[row], table.high[row], cells=n, voxel_size=self._voxel_size)
            for n in self._cells
        ]

    def surfaces(self) -> np.ndarray:
        """`[n]`, in the square of the unit of the directions; call once, after the last slab."""
        self._counter.finish()
        return self._directions.surface(self._counter.crossings)

    def touches_border(self, shape: tuple[int, int, int]) -> np.ndarray:
        """`[n]` bool: objects at the faces of `shape` zyx or beside unlabelled voxels."""
        table = self._components.table
        at_face = (table.low == 0).any(axis=1) | (table.high == np.array(shape)).any(axis=1)
        return at_face | self._counter.beside_unlabelled


class Overlaps:
    """Counts the voxels that objects of two structures have in common."""

    def __init__(self) -> None:
        self._counts: dict[int, dict[int, int]] = collections.defaultdict(dict)

    def add(self, inner: np.ndarray, outer: np.ndarray) -> None:
        """Takes ids `[n, h, w]` of both structures, row + 1 or 0."""
        for a, b in zip(inner, outer, strict=True):
            both = np.flatnonzero((a != 0) & (b != 0))
            pairs = a.ravel()[both].astype(np.int64) << 32 | b.ravel()[both]
            found, counts = np.unique(pairs, return_counts=True)
            for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
                row = self._counts[(pair >> 32) - 1]
                other = (pair & 0xFFFFFFFF) - 1
                row[other] = row.get(other, 0) + count

    def largest(self, row: int) -> tuple[int | None, int]:
        """The outer object that shares most voxels with an inner one, and how many."""
        found = self._counts.get(row)
        if not found:
            return None, 0
        best = max(found, key=lambda other: (found[other], -other))
        return best, found[best]
