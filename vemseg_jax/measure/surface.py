"""Surface area of digitised objects, by counting where lines cross their boundary.

Crofton's formula: the surface of a body is four times its projected area, averaged over all
directions, where a line that enters the body k times counts k times. On a grid, the lines of
direction v through all voxel centres each stand for a cross-section of (voxel volume) / |v|, and
a line crosses the boundary between voxels p and p + v when exactly one of them is inside. With T_v
such pairs and weights w_v that sum to 1 over directions,

    S = 2 * voxel_volume * sum_v w_v * T_v / |v|

(Legland, Kiêu and Devaux 2007, Image Analysis & Stereology 26:83-92, whose weights are the areas of
the spherical Voronoi cells of the directions). Their 13 directions to the neighbours of a voxel
leave wide gaps where voxels are not cubes; here directions are longer steps too, chosen to cover
the sphere evenly for the voxel size at hand, and the weights are moved by as little as makes the
mean of every quadratic function of the direction exact. The counts are sums over pairs of voxels,
so they stream, and other than the area of a mesh around the voxels they have no staircase in them.

Measured error on digitised ellipsoids in random poses, with voxels of 50 x 16 x 16, 50 x 40 x 40,
16 x 64 x 64 and equal sides, lengths in the longest side of a voxel: spheres of radius 10 within
0.7 %, half-axes from 12:5:5 to 12:12:5 -0.3 % on average and within 1.2 %, discs of 14:14:2.5
within 4 %, spheres of radius 2.5 -3 % on average and within 7 %. With voxels of 320 x 64 x 64 and
half-axes from 6:2.5:2.5 to 6:6:2.5 slices -1.1 % on average and within 1.9 %. Steps longer than the
object is thick miss it: bodies of a few voxels come out too small.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import SphericalVoronoi

# Degrees between any two directions, and the longest step in coarsest voxel sides.
SEPARATION = 20.0
LONGEST = 2.0
# Steps in voxels, z and then y or x: planes kept back, and a bound on the search.
_MOST = (8, 12, 12)

UNLABELLED_ID, FIRST_ID = 1, 2
# Rows and columns of a plane: top, bottom, left, right; bottom and right not included.
_Window = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Directions:
    """Steps along which the boundary is sought.

    Attributes:
      steps: `[d, 3]` int64 zyx, in voxels; one of each pair of opposite ones. The first three
        that are one voxel long are the axes.
      weights: `[d]` float64, what a crossing along each adds to the surface, in the square of the
        unit of the voxel size.
    """

    steps: np.ndarray
    weights: np.ndarray

    @property
    def planes(self) -> int:
        """The longest step along z."""
        return int(self.steps[:, 0].max())

    def surface(self, crossings: np.ndarray) -> np.ndarray:
        """Surface `[n]` of objects with `crossings` `[n, d]`."""
        return np.asarray(crossings, np.float64) @ self.weights


def choose_directions(voxel_size: Sequence[float]) -> Directions:
    """Directions that cover the sphere for voxels of `voxel_size` zyx, in any unit of length.

    Shortest first, a step is taken when it is at least `SEPARATION` degrees from those taken.
    """
    size = np.asarray(voxel_size, np.float64)
    longest = LONGEST * size.max()
    nz, ny, nx = (min(int(longest / s), m) for s, m in zip(size, _MOST, strict=True))
    ranges = (range(nz + 1), range(-ny, ny + 1), range(-nx, nx + 1))
    steps = np.array(
        [v for v in itertools.product(*ranges) if v > (0, 0, 0) and math.gcd(*v) == 1], np.int64
    )
    lengths = np.linalg.norm(steps * size, axis=1)
    unit = steps * size / lengths[:, None]
    axis = np.abs(steps).sum(axis=1) == 1
    order = np.lexsort((*steps.T, np.round(lengths / size.max(), 6), ~axis))
    taken: list[int] = []
    for i in order:
        close = np.abs(unit[taken] @ unit[i]) > math.cos(math.radians(SEPARATION))
        if lengths[i] <= longest and not close.any():
            taken.append(int(i))
    cells = SphericalVoronoi(np.concatenate([unit[taken], -unit[taken]])).calculate_areas()
    share = _exact_quadratics(unit[taken], cells[: len(taken)] / cells[: len(taken)].sum())
    return Directions(steps[taken], 2 * np.prod(size) * share / lengths[taken])


def _exact_quadratics(unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest weights `[d]` whose sum of w u u' is a third of the identity, as on the sphere.

    Nearest in the sum of squared changes over weights; `unit` `[d, 3]`.
    """
    rows, columns = np.triu_indices(3)
    products = unit[:, rows] * unit[:, columns]
    missing = np.where(rows == columns, 1 / 3, 0.0) - weights @ products
    scaled = products * weights[:, None]
    return weights + scaled @ np.linalg.solve(products.T @ scaled, missing)


class CrossingCounter:
    """Counts crossings over the planes of a volume, which come in order, slab by slab.

    Everything outside the volume is background, so where the volume cuts an object the cut is
    part of its surface.

    Args:
      objects: how many there are; their ids are 2 to `objects + 1`.
      plane: `(h, w)`.
    """

    def __init__(self, directions: Directions, *, objects: int, plane: tuple[int, int]):
        self._steps = directions.steps.tolist()
        self._margin = [(int(n), int(n)) for n in np.abs(directions.steps[:, 1:]).max(axis=0)]
        self._counts = np.zeros((len(self._steps), objects + FIRST_ID), np.int64)
        self._beside = np.zeros(objects + FIRST_ID, bool)
        self._nothing = np.zeros(plane, np.uint32)
        nothing = np.pad(self._nothing, self._margin)
        # The last planes, newest first, with a margin of background and what they hold.
        self._padded: collections.deque[np.ndarray] = collections.deque(
            [nothing] * (directions.planes + 1), directions.planes + 1
        )
        self._filled: collections.deque[_Window | None] = collections.deque(
            [None] * len(self._padded), len(self._padded)
        )

    @property
    def crossings(self) -> np.ndarray:
        """`[objects, d]` int64."""
        return self._counts.T[FIRST_ID:]

    @property
    def beside_unlabelled(self) -> np.ndarray:
        """`[objects]` bool, a voxel shares a face with an unlabelled one."""
        return self._beside[FIRST_ID:]

    def add(self, ids: np.ndarray) -> None:
        """Takes the next plane `[h, w]` uint32: 0 background, 1 unlabelled, objects from 2 on."""
        padded = np.pad(ids, self._margin)
        self._padded.appendleft(padded)
        self._filled.appendleft(_window(padded))
        filled = [window for window in self._filled if window is not None]
        if filled:
            self._count(_around(filled))

    def finish(self) -> None:
        """Counts what crosses the last plane."""
        for _ in range(len(self._padded) - 1):
            self.add(self._nothing)

    def _count(self, window: _Window) -> None:
        top, bottom, left, right = window
        for d, (dz, dy, dx) in enumerate(self._steps):
            rows = (top + min(0, dy), bottom + max(0, dy))
            columns = (left + min(0, dx), right + max(0, dx))
            here = self._padded[0][slice(*rows), slice(*columns)]
            there = self._padded[dz][rows[0] - dy : rows[1] - dy, columns[0] - dx : columns[1] - dx]
            # Several times faster than nonzero in two dimensions.
            y, x = np.divmod(np.flatnonzero(here != there), here.shape[1])
            a, b = here[y, x], there[y, x]
            ids = self._counts.shape[1]
            self._counts[d] += np.bincount(a, minlength=ids) + np.bincount(b, minlength=ids)
            if abs(dz) + abs(dy) + abs(dx) == 1:
                self._beside[a[b == UNLABELLED_ID]] = True
                self._beside[b[a == UNLABELLED_ID]] = True


def _window(plane: np.ndarray) -> _Window | None:
    """Rows and columns of a plane that hold objects; None where there are none."""
    objects = plane >= FIRST_ID
    y, x = np.flatnonzero(objects.any(axis=1)), np.flatnonzero(objects.any(axis=0))
    return (int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1) if len(y) else None


def _around(windows: Sequence[_Window]) -> _Window:
    tops, bottoms, lefts, rights = zip(*windows, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)
