"""Textures of the phantom: smooth 3D noise, evaluated one slice at a time.

Nothing here keeps state between slices. Random numbers are drawn per lattice plane from a
counter-based generator keyed by (seed, channel, plane), so a slice can be made in any order.
Lengths are in nm, coordinates in the order zyx; the centre of voxel 0 lies at half a voxel.
"""

import dataclasses
import functools
import math

import numpy as np
from scipy import sparse

# A cubic B-spline over white noise has this variance in three dimensions (mean over phases).
SPLINE_VARIANCE = 0.4794**3


def generator(seed: int, channel: int, index: int) -> np.random.Generator:
    """Random numbers that belong to one (seed, channel, index) and to nothing else."""
    key = np.array([seed, (channel << 32) + index + (1 << 31)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def spline_weights(t: np.ndarray, *, derivative: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-spline weights `[n, 4]` at node coordinates `t: [n]`, and the first node `[n]`."""
    first = np.floor(t)
    u = t - first
    if derivative:
        weights = [-((1 - u) ** 2) / 2, (3 * u - 4) * u / 2, (1 + 2 * u - 3 * u * u) / 2, u * u / 2]
    else:
        cube = u * u * u
        weights = [
            (1 - u) ** 3 / 6,
            (3 * cube - 6 * u * u + 4) / 6,
            (-3 * cube + 3 * u * u + 3 * u + 1) / 6,
            cube / 6,
        ]
    return np.stack(weights, axis=-1), first.astype(np.int64) - 1


def _basis(t: np.ndarray, *, derivative: bool = False) -> sparse.csr_array:
    weights, first = spline_weights(t, derivative=derivative)
    columns = first - first.min()
    return sparse.csr_array(
        (
            weights.astype(np.float32).ravel(),
            (columns[:, None] + np.arange(4)).ravel().astype(np.int32),
            np.arange(0, 4 * len(t) + 1, 4, dtype=np.int32),
        ),
        shape=(len(t), int(columns.max()) + 4),
    )


@dataclasses.dataclass(frozen=True)
class PlaneGrid:
    """Points of one slice: `shape` (y, x) of them, `step` nm apart, the first at `origin` nm."""

    shape: tuple[int, int]
    step: tuple[float, float]
    origin: tuple[float, float]

    def axis(self, index: int) -> np.ndarray:
        """Coordinates in nm along y (0) or x (1): `[n]` float32."""
        n, step, origin = self.shape[index], self.step[index], self.origin[index]
        return (origin + step * np.arange(n)).astype(np.float32)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - grids live as long as their phantom
    def basis(self, index: int, spacing: float, derivative: bool = False) -> sparse.csr_array:
        """Sparse weights `[points, nodes]` of a lattice with nodes `spacing` nm apart."""
        t = (self.origin[index] + self.step[index] * np.arange(self.shape[index])) / spacing
        return _basis(t, derivative=derivative)


@dataclasses.dataclass
class Noise:
    """A smooth Gaussian random field of mean 0 and variance about 1 on one slice of a grid.

    The field is a cubic B-spline over white noise on a 3D lattice, so it is smooth in z as in
    the plane. Lattices finer than the grid are widened to it, which avoids aliasing.
    """

    grid: PlaneGrid
    seed: int
    z: float
    channel: int
    spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        self._lattice = (
            max(self.spacing[1], self.grid.step[0]),
            max(self.spacing[2], self.grid.step[1]),
        )
        shape = tuple(self.grid.basis(i, self._lattice[i]).shape[1] for i in (0, 1))
        weights, first = spline_weights(np.array([self.z / self.spacing[0]]))
        nodes = np.zeros(shape, np.float32)
        for k in range(4):
            rng = generator(self.seed, self.channel, int(first[0]) + k)
            nodes += np.float32(weights[0, k]) * rng.standard_normal(shape, dtype=np.float32)
        self._nodes = nodes / np.float32(math.sqrt(SPLINE_VARIANCE))

    def __call__(self, rows: slice = slice(None), *, derivative: int | None = None) -> np.ndarray:
        """Values `[rows, x]` float32, or their slope per nm along y (0) or x (1)."""
        return spread(self._nodes, self.grid, self._lattice, rows=rows, derivative=derivative)


def spread(
    nodes: np.ndarray,
    grid: PlaneGrid,
    spacing: tuple[float, float],
    *,
    rows: slice = slice(None),
    derivative: int | None = None,
) -> np.ndarray:
    """Cubic B-spline with coefficients `nodes: [y, x]`, evaluated on rows of the grid."""
    by = grid.basis(0, spacing[0], derivative == 0)[rows]
    bx = grid.basis(1, spacing[1], derivative == 1)
    # Only the lattice rows under these rows are stretched along x.
    low, high = int(by.indices.min()), int(by.indices.max()) + 1
    wide = np.ascontiguousarray((bx @ np.ascontiguousarray(nodes[low:high].T)).T)
    values = by[:, low:high] @ wide
    if derivative is not None:
        values *= np.float32(1 / spacing[derivative])
    return values


def line(distance: np.ndarray, *, width: float, pixel: float) -> np.ndarray:
    """Profile in 0-1 of a stained sheet `width` nm thick, seen through pixels of `pixel` nm."""
    blurred = math.hypot(width, 0.7 * pixel)
    return np.float32(width / blurred) * np.exp(-np.square(distance * np.float32(1.4 / blurred)))


def ramp(value: np.ndarray, low: float | np.ndarray, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (either may be the larger)."""
    t = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    """Linear: `limits[0]` where `share` is 0, `limits[1]` where it is 1."""
    return np.float32(limits[0]) + np.float32(limits[1] - limits[0]) * share


def rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    """Uniform random rotation matrices `[count, 3, 3]`, from unit quaternions."""
    q = rng.standard_normal((count, 4))
    a, b, c, d = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
