"""Textures of the phantom: smooth 3D noise and small bodies, evaluated one slice at a time.

Nothing here keeps state between slices. Random numbers are drawn per lattice plane from a
counter-based generator keyed by (seed, channel, plane), so a slice can be made in any order.
Lengths are in nm, coordinates in the order zyx; the centre of voxel 0 lies at half a voxel.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

# A cubic B-spline over white noise has this variance in three dimensions (mean over phases).
_SPLINE_VARIANCE = 0.4794**3


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
        self._nodes = nodes / np.float32(math.sqrt(_SPLINE_VARIANCE))

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


@dataclasses.dataclass
class Bodies:
    """Ellipsoidal organelles near one slice; every array has one entry (row) per body.

    centre `[n, 3]` nm; turn `[n, 3, 3]` to the body's own axes; axes `[n, 3]` semi-axes in nm;
    choice, tone `[n]` uniform in [0, 1): what the body is, and how dark.
    """

    centre: np.ndarray
    turn: np.ndarray
    axes: np.ndarray
    choice: np.ndarray
    tone: np.ndarray

    def select(self, keep: np.ndarray) -> "Bodies":
        """The bodies for which `keep: [n]` is set."""
        return Bodies(**{f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self)})

    def half_extent(self) -> np.ndarray:
        """Half the size along each axis of the volume, `[n, 3]` nm."""
        return np.sqrt(np.square(self.turn * self.axes[:, :, None]).sum(1))

    def without_overlap(self) -> "Bodies":
        """Leaves out a body that comes too near to one of lower `choice`."""
        size = self.axes.mean(axis=1)
        pairs = cKDTree(self.centre).query_pairs(1.8 * float(size.max()), output_type="ndarray")
        gap = np.linalg.norm(np.subtract(*self.centre[pairs.T]), axis=1)
        close = pairs[gap < 0.8 * size[pairs].sum(axis=1)]
        first = self.choice[close[:, 0]] < self.choice[close[:, 1]]
        keep = np.ones(len(size), bool)
        keep[np.where(first, close[:, 1], close[:, 0])] = False
        return self.select(keep)

    def apart_from(self, other: "Bodies") -> "Bodies":
        """Leaves out bodies whose centre lies in or close to one of `other`."""
        if not len(other.tone) or not len(self.tone):
            return self
        near = cKDTree(self.centre).sparse_distance_matrix(
            cKDTree(other.centre), 1.3 * float(other.axes.max()), output_type="coo_matrix"
        )
        offset = self.centre[near.row] - other.centre[near.col]
        own = np.einsum("nij,nj->ni", other.turn[near.col], offset)
        reach = other.axes[near.col] + self.axes[near.row, :1]
        keep = np.ones(len(self.tone), bool)
        keep[near.row[np.square(own / reach).sum(axis=1) < 1]] = False
        return self.select(keep)


def bodies_near(
    grid: PlaneGrid,
    *,
    seed: int,
    channel: int,
    z: float,
    pitch: float,
    longest: tuple[float, float],
    aspect: tuple[float, float],
) -> Bodies:
    """Bodies of a jittered lattice with `pitch` nm between them that may meet the slice at `z`.

    longest: range of the largest semi-axis in nm; aspect: range of the others over it.
    """
    extent = [(n + 1) * s for n, s in zip(grid.shape, grid.step, strict=True)]
    shape = tuple(math.ceil(e / pitch) + 4 for e in extent)
    layers = []
    # Twice the reach, so that whom a body would overlap is known however far from the slice.
    reach = 2.8 * longest[1] + pitch
    for index in range(math.floor((z - reach) / pitch), math.ceil((z + reach) / pitch) + 1):
        rng = generator(seed, channel, index)
        cells = np.stack(np.meshgrid([index], *map(np.arange, shape), indexing="ij"), axis=-1)
        centre = (cells.reshape(-1, 3) + rng.uniform(-0.45, 0.45, (cells.size // 3, 3))) * pitch
        centre[:, 1:] += np.array(grid.origin) - 2 * pitch
        n = len(centre)
        first = rng.uniform(*longest, n)
        axes = np.stack([first, *(first * rng.uniform(*aspect, n) for _ in range(2))], axis=1)
        turn = rotations(rng, n)
        layers.append(Bodies(centre, turn, axes, rng.random(n), rng.random(n)))
    joined = {
        f.name: np.concatenate([getattr(layer, f.name) for layer in layers])
        for f in dataclasses.fields(Bodies)
    }
    bodies = Bodies(**joined).without_overlap()
    return bodies.select(np.abs(bodies.centre[:, 0] - z) < bodies.half_extent()[:, 0])


class Painter:
    """The grey values of one slice, painted block by block of rows."""

    def __init__(
        self,
        preset: Any,
        config: Any,
        *,
        z: int,
        grid: PlaneGrid,
        fields: dict[str, np.ndarray],
        step: tuple[float, float],
    ) -> None:
        self.preset, self.grid = preset, grid
        self.pixel = math.sqrt(grid.step[0] * grid.step[1])
        self.fields, self.step = fields, step
        self.z = (z + 0.5) * config.voxel_size[0]
        self._seed = config.stream
        self._noise: dict[int, Noise] = {}
        self._shot = generator(config.stream, 1, z)
        jitter = self._shot.standard_normal(2)
        self.brightness = preset.drift * (
            self._drift(2, 2500) + 0.5 * self._drift(3, 300) + 0.35 * jitter[0]
        )
        self.contrast = preset.contrast * (1 + 0.05 * self._drift(4, 2500) + 0.015 * jitter[1])
        self.mitochondria = self._bodies(30, 560.0, (260.0, 760.0), (0.28, 0.5))
        self.vesicles = self._bodies(31, 330.0, (35.0, 190.0), (0.7, 1.0))
        self.vesicles = self._fit(self.vesicles.apart_from(self.mitochondria), None)
        self.mitochondria = self._fit(self.mitochondria, "mitochondria")

    def _drift(self, channel: int, length: float) -> float:
        weights, first = spline_weights(np.array([self.z / length]))
        draws = [
            generator(self._seed, channel, int(first[0]) + k).standard_normal() for k in range(4)
        ]
        return float(weights[0] @ draws) / math.sqrt(_SPLINE_VARIANCE ** (1 / 3))

    def _bodies(self, channel: int, pitch: float, longest: Any, aspect: Any) -> Bodies:
        return bodies_near(
            self.grid,
            seed=self._seed,
            channel=channel,
            z=self.z,
            pitch=pitch,
            longest=longest,
            aspect=aspect,
        )

    def noise(
        self, channel: int, spacing: float | tuple[float, float, float], rows: slice, **options: Any
    ) -> np.ndarray:
        """The field `channel`, drawn once per slice."""
        if channel not in self._noise:
            size = spacing if isinstance(spacing, tuple) else (spacing,) * 3
            self._noise[channel] = Noise(self.grid, self._seed, self.z, channel, size)
        return self._noise[channel](rows, **options)

    def _slope(self, name: str, axis: int, rows: slice) -> np.ndarray:
        return spread(self.fields[name], self.grid, self.step, rows=rows, derivative=axis)

    def paint(self, smooth: dict[str, np.ndarray], rows: slice) -> np.ndarray:
        """The image on these rows, `[rows, x]` uint8; blocks must come from the top down."""
        grains = 0.75 * self.noise(40, 48, rows) + 0.65 * self.noise(41, 24, rows)
        soft = max(self.pixel, 10.0)
        image = self._cytoplasm(smooth, grains, rows)
        self._draw_bodies(image, rows)
        outside = np.clip(0.5 - smooth["cell"] / soft, 0, 1)
        image += outside * (self._outside(rows) - image)
        image -= 62 * line(smooth["cell"] - 8, width=14, pixel=self.pixel)
        inside = np.clip(0.5 - smooth["nucleus"] / soft, 0, 1)
        image += inside * (self._nucleus(smooth, grains, rows) - image)
        for depth in (6, 42):
            image -= 58 * line(smooth["nucleus"] + depth, width=13, pixel=self.pixel)
        return self._acquire(image, smooth, rows)

    def _outside(self, rows: slice) -> np.ndarray:
        return 205 + 9 * self.noise(42, (600, 70, 70), rows)

    def _nucleus(
        self, smooth: dict[str, np.ndarray], grains: np.ndarray, rows: slice
    ) -> np.ndarray:
        preset, d, n = self.preset, smooth["nucleus"], smooth["nucleolus"]
        size = preset.chromatin_size
        fine = self.noise(44, 0.42 * size, rows)
        mixed = 0.85 * self.noise(43, size, rows) + 0.5 * fine
        # Heterochromatin lines the envelope, with breaks at the pores, and the nucleoli.
        rim = np.exp(np.minimum(d, 0) * np.float32(1 / 120)) * 1.9
        collar = np.exp(-np.maximum(n, 0) * np.float32(1 / 130)) * 1.3
        dense = ramp(mixed + rim + collar, preset.chromatin_level, preset.chromatin_level + 0.75)
        image = smooth["nucleus_grey"] - preset.chromatin_depth * dense
        image += (5 + 2 * dense) * grains
        nucleolus = smooth["nucleolus_grey"] + preset.nucleolus_patches * self.noise(45, 120, rows)
        nucleolus += 7 * grains
        if preset.vacuoles > 0:
            holes = ramp(self.noise(46, 230, rows), 1.75 - 0.5 * preset.vacuoles, 2.0)
            nucleolus += 55 * holes
        # The edge of a nucleolus is granular, not sharp.
        body = np.clip(0.5 - (n + 12 * grains) / 60, 0, 1)
        return image + body * (nucleolus - image)

    def _cytoplasm(
        self, smooth: dict[str, np.ndarray], grains: np.ndarray, rows: slice
    ) -> np.ndarray:
        preset = self.preset
        image = smooth["cytoplasm_grey"] - preset.granules * ramp(grains, 0.1, 1.6)
        image += 0.35 * preset.granules * grains
        image += 5 * self.noise(49, 170, rows)
        # Reticulum: sheets where a smooth field crosses whole numbers, so they run in parallel,
        # and mostly around the nucleus.
        field = smooth["nucleus"] / 330 + 1.1 * self.noise(47, 560, rows)
        steep = np.full_like(field, 4e-4)
        for axis in (0, 1):
            slope = self._slope("nucleus", axis, rows) / 330
            steep = np.hypot(steep, slope + 1.1 * self.noise(47, 560, rows, derivative=axis))
        sheet = np.abs(field - np.round(field)) / steep
        there = ramp(smooth["reticulum"] + 0.9 * self.noise(48, 300, rows), 0.15, 0.8)
        image += 10 * there * line(sheet, width=40, pixel=self.pixel)
        image -= preset.reticulum * there * line(sheet - 24, width=20, pixel=self.pixel)
        # Ribosomes: dots, denser along the reticulum.
        dots = ramp(self.noise(52, 30, rows), 1.2 - 0.5 * there, 2.2)
        return image - 2.2 * preset.granules * dots

    def _look_up(self, name: str, centre: np.ndarray) -> np.ndarray:
        """The field at the nearest coarse point to each centre, `[n]`."""
        nodes = self.fields[name]
        y, x = (
            np.clip(np.rint(centre[:, i + 1] / self.step[i]).astype(int) + 1, 0, nodes.shape[i] - 1)
            for i in (0, 1)
        )
        return nodes[y, x]

    def _fit(self, bodies: Bodies, wanted: str | None) -> Bodies:
        """Shrinks bodies that have no room in the cytoplasm, and drops those with next to none.

        The scale follows the slice's fields, which are smooth in z, so no body pops up.
        """
        centre = bodies.centre
        room = np.minimum(self._look_up("nucleus", centre), self._look_up("cell", centre)) - 30
        scale = np.clip(room / bodies.axes.min(axis=1), 0, 1)
        if wanted is None:
            scale *= bodies.choice <= self.preset.vesicles
        else:
            scale *= np.clip(4 * (self._look_up(wanted, centre) - bodies.choice), 0, 1)
        bodies = dataclasses.replace(bodies, axes=bodies.axes * scale[:, None])
        return bodies.select(scale >= 0.25)

    def _draw_bodies(self, image: np.ndarray, rows: slice) -> None:
        """Paints the bodies that meet this block."""
        dy, dx = self.grid.step
        for bodies, draw in (
            (self.vesicles, self._vesicle),
            (self.mitochondria, self._mitochondrion),
        ):
            half = 1.3 * bodies.half_extent()[:, 1:] + 40
            low = np.floor((bodies.centre[:, 1:] - half) / (dy, dx)).astype(int)
            high = np.ceil((bodies.centre[:, 1:] + half) / (dy, dx)).astype(int)
            low = np.maximum(low, (rows.start, 0))
            high = np.minimum(high, (rows.stop, image.shape[1]))
            for k in np.flatnonzero((low < high).all(axis=1)).tolist():
                (top, left), (bottom, right) = low[k], high[k]
                y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * np.float32(dy)
                x = (np.arange(left, right, dtype=np.float32) + 0.5) * np.float32(dx)
                own, depth = self._inside(bodies, k, y, x)
                patch = image[top - rows.start : bottom - rows.start, left:right]
                draw(patch, depth, own, bodies, k)

    def _inside(
        self, bodies: Bodies, k: int, y: np.ndarray, x: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Coordinates in the body's own axes, bent a little, and depth under its surface; nm."""
        turn, axes = bodies.turn[k].astype(np.float32), bodies.axes[k].astype(np.float32)
        dz, cy, cx = (np.float32(v) for v in (self.z - bodies.centre[k, 0], *bodies.centre[k, 1:]))
        own = [t[0] * dz + t[1] * (y[:, None] - cy) + t[2] * (x - cx) for t in turn]
        bend = np.float32(0.5 * (bodies.tone[k] - 0.5)) * axes[1]
        own[1] = own[1] + bend * np.square(own[0] / axes[0])
        rho = np.sqrt(sum(np.square(o / a) for o, a in zip(own, axes, strict=True)))
        return own, (1 - rho) * axes[1:].mean()

    def _mitochondrion(
        self, patch: np.ndarray, depth: np.ndarray, own: Any, bodies: Bodies, k: int
    ) -> None:
        low, high = self.preset.mitochondrion_grey
        grey = low + (high - low) * bodies.tone[k]
        period = 80 + 50 * bodies.choice[k]
        wave = own[0] * np.float32(2 * math.pi / period)
        wave += 1.1 * np.sin(own[1] * np.float32(1 / 60) + 9 * bodies.tone[k])
        wave += 0.8 * np.sin(own[0] * np.float32(1 / 170) + own[2] * np.float32(1 / 70))
        seen = math.exp(-((self.pixel / 45) ** 2)) * (10 + 16 * bodies.tone[k])
        broken = ramp(np.sin(own[1] * np.float32(1 / 80) + 0.5 * wave), -0.8, 0.3)
        inner = grey + seen * np.sin(wave) * broken * ramp(depth, 15, 60)
        inside = np.clip(0.5 + depth / max(self.pixel, 10.0), 0, 1)
        patch += inside * (inner - patch)
        patch -= 38 * line(depth - 8, width=20, pixel=self.pixel)

    def _vesicle(
        self, patch: np.ndarray, depth: np.ndarray, own: Any, bodies: Bodies, k: int
    ) -> None:
        del own
        inside = np.clip(0.5 + depth / max(self.pixel, 10.0), 0, 1)
        kind = bodies.choice[k] / max(self.preset.vesicles, 1e-6)
        if kind < 0.55:  # vesicle
            patch += inside * (168 + 40 * bodies.tone[k] - patch)
            patch -= 55 * line(depth - 5, width=14, pixel=self.pixel)
        elif kind < 0.8:  # lysosome
            patch += inside * (70 + 45 * bodies.tone[k] - patch)
        else:  # lipid
            patch += inside * (120 + 20 * bodies.tone[k] - patch)

    def _acquire(self, image: np.ndarray, smooth: dict[str, np.ndarray], rows: slice) -> np.ndarray:
        """Contrast, illumination, curtains and shot noise; then 8 bit."""
        preset = self.preset
        stripes = 0.8 * self.noise(50, (400, 60000, 45), rows) + self.noise(
            51, (900, 20000, 260), rows
        )
        image = (image - 145) * np.float32(self.contrast) + np.float32(145 + self.brightness)
        image += smooth["light"] + preset.curtains * stripes
        shot = self._shot.standard_normal(image.shape, dtype=np.float32)
        image += np.float32(preset.noise) * shot * np.sqrt(np.clip(image, 10, 255) / 150)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)
