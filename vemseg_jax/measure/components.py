"""3D connected components of a volume that is read slab by slab.

The result is that of labelling the whole volume at once, for any slab size. Each slab is labelled
by connected-components-3d; its components are joined to those of the slab before where voxels of
the two facing planes are neighbours. Objects that the last plane no longer shows are finished: the
small ones among them are dropped at once, so that memory holds a slab, the objects that are kept
and the unfinished ones. Reading the slabs a second time gives every voxel the number of its object.
"""

import dataclasses
import itertools
from typing import Any

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# In-plane shifts that make two voxels of neighbouring planes neighbours.
_FACE = ((0, 0),)
_EDGE = (*_FACE, (0, 1), (0, -1), (1, 0), (-1, 0))
_CORNER = (*_EDGE, (1, 1), (1, -1), (-1, 1), (-1, -1))
SHIFTS = {6: _FACE, 18: _EDGE, 26: _CORNER}


@dataclasses.dataclass
class Table:
    """What is known of n objects; rows of all arrays correspond.

    Attributes:
      voxels: `[n]` int64.
      sums: `[n, 3]` int64, sums of the voxels' indices zyx.
      low, high: `[n, 3]` int64, bounding box zyx, `high` not included.
    """

    voxels: np.ndarray
    sums: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    def take(self, rows: np.ndarray) -> "Table":
        """The rows named, or those where a mask is set."""
        return Table(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def centroids(self) -> np.ndarray:
        """`[n, 3]` float64, mean voxel index zyx."""
        return self.sums / self.voxels[:, None]


def _concatenate(tables: list[Table]) -> Table:
    names = [f.name for f in dataclasses.fields(Table)]
    return Table(*(np.concatenate([getattr(t, name) for t in tables]) for name in names))


def _merge(table: Table, groups: np.ndarray, count: int) -> Table:
    """Joins rows with equal number in `groups` `[n]`, which runs from 0 to `count - 1`."""
    voxels, sums = np.zeros(count, np.int64), np.zeros((count, 3), np.int64)
    low = np.full((count, 3), np.iinfo(np.int64).max)
    high = np.zeros((count, 3), np.int64)
    np.add.at(voxels, groups, table.voxels)
    np.add.at(sums, groups, table.sums)
    np.minimum.at(low, groups, table.low)
    np.maximum.at(high, groups, table.high)
    return Table(voxels, sums, low, high)


def label_slab(slab: np.ndarray, connectivity: int) -> tuple[np.ndarray, int]:
    """Components of a slab `[n, h, w]` uint8 0/1/255: ids `[n, h, w]` from 1, and how many."""
    # Its type stubs ask for literal numbers.
    neighbours: Any = connectivity
    local, found = cc3d.connected_components(
        slab == 1, connectivity=neighbours, return_N=True, out_dtype=np.uint32
    )
    return local, int(found)


def _slab_table(local: np.ndarray, count: int, *, z: int) -> Table:
    if not count:
        none = np.zeros((0, 3), np.int64)
        return Table(np.zeros(0, np.int64), none, none, none)
    found = cc3d.statistics(local, no_slice_conversion=True)
    voxels = found["voxel_counts"][1:].astype(np.int64)
    box = found["bounding_boxes"][1:].astype(np.int64)
    sums = np.rint(found["centroids"][1:] * voxels[:, None]).astype(np.int64)
    offset = np.array([z, 0, 0])
    return Table(
        voxels=voxels,
        sums=sums + offset * voxels[:, None],
        low=box[:, ::2] + offset,
        high=box[:, 1::2] + 1 + offset,
    )


def _links(above: np.ndarray, below: np.ndarray, connectivity: int) -> np.ndarray:
    """Pairs `[p, 2]` of ids that are neighbours across two planes `[h, w]`; 0 is background."""
    h, w = above.shape
    pairs = [np.zeros((0, 2), np.int64)]
    for dy, dx in SHIFTS[connectivity]:
        a = above[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
        b = below[max(0, dy) : h - max(0, -dy), max(0, dx) : w - max(0, -dx)]
        y, x = np.divmod(np.flatnonzero((a != 0) & (b != 0)), a.shape[1])
        joined = a[y, x].astype(np.int64) << 32 | b[y, x].astype(np.int64)
        found = np.unique(joined)
        pairs.append(np.stack([found >> 32, found & 0xFFFFFFFF], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


class ComponentStream:
    """Takes the slabs of one structure in order; `finish` returns its objects.

    Args:
      plane: `(h, w)`.
      connectivity: 6, 18 or 26.
      min_voxels: smaller objects are dropped.

    Attributes:
      dropped, dropped_voxels: objects below `min_voxels`, and their voxels.
    """

    def __init__(self, *, plane: tuple[int, int], connectivity: int, min_voxels: int = 1):
        if connectivity not in SHIFTS:
            raise ValueError(f"connectivity {connectivity}; there are {sorted(SHIFTS)}")
        self._connectivity, self._min_voxels = connectivity, min_voxels
        self._z, self._slabs = 0, 0
        # The plane before the next slab; row r of `_open` has id r + 1.
        self._last = np.zeros(plane, np.uint32)
        self._open = _slab_table(self._last, 0, z=0)
        # Of which rows, slabs and ids within the slab an unfinished object consists.
        self._pieces = np.zeros((0, 3), np.int64)
        self._done: list[Table] = [self._open]
        self._done_pieces: list[np.ndarray] = [self._pieces]
        self._done_count = 0
        self.dropped = self.dropped_voxels = 0

    def add(self, slab: np.ndarray) -> None:
        """Takes the next planes, `[n, h, w]` uint8: 1 structure, anything else none."""
        local, found = label_slab(slab, self._connectivity)
        groups = self._join(local[0], found)
        table = _slab_table(local, found, z=self._z)
        rows, count = len(self._open), int(groups.max(initial=-1)) + 1
        merged = _merge(_concatenate([self._open, table]), groups, count)
        self._pieces[:, 0] = groups[self._pieces[:, 0]]
        pieces = np.full((found, 3), self._slabs, np.int64)
        pieces[:, 0], pieces[:, 2] = groups[rows:], np.arange(1, found + 1)
        self._pieces = np.concatenate([self._pieces, pieces])
        last = np.concatenate([[0], groups[rows:] + 1]).astype(np.uint32)[local[-1]]
        self._keep_open(merged, last)
        self._z += len(slab)
        self._slabs += 1

    def _join(self, first: np.ndarray, found: int) -> np.ndarray:
        """The new row of every unfinished object and of every component of the slab."""
        rows = len(self._open)
        links = _links(self._last, first, self._connectivity) - 1
        total = rows + found
        ones = np.ones(len(links), bool)
        graph = coo_array((ones, (links[:, 0], links[:, 1] + rows)), shape=(total, total))
        return connected_components(graph, directed=False)[1] if total else np.zeros(0, np.int64)

    def _keep_open(self, table: Table, last: np.ndarray) -> None:
        """Goes on with the objects in the plane `last` and sets the finished ones aside."""
        still = np.zeros(len(table) + 1, bool)
        still[last] = True
        still = still[1:]
        kept = ~still & (table.voxels >= self._min_voxels)
        small = ~still & ~kept
        self.dropped += int(small.sum())
        self.dropped_voxels += int(table.voxels[small].sum())
        self._set_aside(table.take(kept), kept)
        row = np.cumsum(still) - 1
        pieces = self._pieces[still[self._pieces[:, 0]]]
        pieces[:, 0] = row[pieces[:, 0]]
        self._open, self._pieces = table.take(still), pieces
        self._last = np.concatenate([[0], row + 1]).astype(np.uint32)[last]

    def _set_aside(self, table: Table, kept: np.ndarray) -> None:
        row = np.cumsum(kept) - 1 + self._done_count
        pieces = self._pieces[kept[self._pieces[:, 0]]]
        pieces[:, 0] = row[pieces[:, 0]]
        self._done.append(table)
        self._done_pieces.append(pieces)
        self._done_count += len(table)

    def finish(self) -> "Components":
        """The objects, in order of their bounding boxes."""
        self._keep_open(self._open, np.zeros_like(self._last))
        table, pieces = _concatenate(self._done), np.concatenate(self._done_pieces)
        # All that is known of them breaks ties, so that the order hangs on no slab size.
        keys = (table.sums, table.voxels[:, None], table.high, table.low)
        order = np.lexsort([column for key in keys for column in key.T[::-1]])
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        pieces[:, 0] = rank[pieces[:, 0]]
        pieces = pieces[np.lexsort((pieces[:, 2], pieces[:, 1]))]
        starts = np.searchsorted(pieces[:, 1], np.arange(self._slabs + 1))
        return Components(
            table.take(order),
            connectivity=self._connectivity,
            pieces=[pieces[a:b, ::2] for a, b in itertools.pairwise(starts)],
        )


class Components:
    """The objects of one structure, and how to find their voxels again.

    Attributes:
      table: one row an object.
    """

    def __init__(self, table: Table, *, connectivity: int, pieces: list[np.ndarray]):
        self.table = table
        self._connectivity, self._pieces = connectivity, pieces

    def __len__(self) -> int:
        return len(self.table)

    def ids(self, slab: np.ndarray, number: int) -> np.ndarray:
        """Ids `[n, h, w]` uint32 of slab `number`, the same as was added: row + 1, else 0."""
        local, found = label_slab(slab, self._connectivity)
        rows, pieces = self._pieces[number].T
        lookup = np.zeros(found + 1, np.uint32)
        lookup[pieces] = rows + 1
        return lookup[local]
