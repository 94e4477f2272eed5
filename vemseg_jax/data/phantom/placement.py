"""Where the phantom's nuclei and nucleoli lie, their shapes, and distances from them.

Lengths are in nm, coordinates in the order zyx.
"""

import dataclasses
import math

import numpy as np

from vemseg_jax.data.phantom import texture
from vemseg_jax.data.phantom.presets import PhantomConfig, Preset

_FAR = 3000.0


@dataclasses.dataclass
class Placement:
    """Nuclei and nucleoli as ellipsoids: |shape @ (p - centre)| < 1, zyx in nm."""

    centre: np.ndarray  # [n, 3]
    shape: np.ndarray  # [n, 3, 3]
    size: np.ndarray  # [n] mean semi-axis
    notch: np.ndarray  # [n, 4] centre and radius of the sphere cut out
    tone: np.ndarray  # [n, 4] uniform in 0-1, one set per cell
    nucleolus_centre: np.ndarray  # [m, 3]
    nucleolus_shape: np.ndarray  # [m, 3, 3]
    nucleolus_size: np.ndarray  # [m]
    nucleolus_tone: np.ndarray  # [m]

    def nucleus_distance(self, k: int, position: np.ndarray) -> np.ndarray:
        """Distance in nm from nucleus `k`, negative inside; position `[3, ...]` zyx."""
        distance = _distance(_offset(position, self.centre[k]), self.shape[k])
        radius = self.notch[k, 3]
        if radius > 0:
            away = np.sqrt(np.square(_offset(position, self.notch[k, :3])).sum(0))
            # A smooth maximum: the lips of the indentation are round.
            rest = np.float32(radius) - away
            distance = np.maximum(distance, rest) + 60 * np.exp(-np.abs(distance - rest) / 150)
        return distance

    def nucleoli(self, z: float, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the nearest nucleolus and its tone in 0-1; position `[3, ...]` near z."""
        best = np.full(position.shape[1:], _FAR, np.float32)
        tone = np.zeros_like(best)
        for k in self.near(z, self.nucleolus_centre, 2 * self.nucleolus_size + 1600):
            offset = _offset(position, self.nucleolus_centre[k])
            distance = _distance(offset, self.nucleolus_shape[k])
            tone = np.where(distance < best, np.float32(self.nucleolus_tone[k]), tone)
            best = np.minimum(best, distance)
        return best, tone

    @staticmethod
    def near(z: float, centre: np.ndarray, reach: float | np.ndarray) -> np.ndarray:
        """Which centres lie within `reach` nm of the slice at `z`."""
        return np.flatnonzero(np.abs(centre[:, 0] - z) < reach)

    def cover(self, z: float, position: np.ndarray) -> tuple[float, float]:
        """Share of nuclei and of nucleoli among the points `position: [3, ...]`."""
        inside = np.zeros(position.shape[1:], bool)
        for k in self.near(z, self.centre, 1.8 * self.size + 400):
            inside |= self.nucleus_distance(k, position) < 0
        return float(inside.mean()), float((self.nucleoli(z, position)[0] < 0).mean())


def _offset(position: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return position - centre.astype(np.float32).reshape(3, *[1] * (position.ndim - 1))


def _ellipsoids(
    rng: np.random.Generator, size: np.ndarray, stretch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices to the unit sphere `[n, 3, 3]`, and semi-axes `[n, 3]`, at constant volume."""
    logs = np.clip(rng.standard_normal((len(size), 3)), -1.6, 1.6) * stretch
    axes = size[:, None] * np.exp(logs - logs.mean(axis=1, keepdims=True))
    return texture.rotations(rng, len(size)) / axes[:, :, None], axes


def _distance(offset: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Distance in nm (first order) from an ellipsoid, negative inside; offset `[3, ...]`."""
    shape = shape.astype(np.float32)
    unit = np.tensordot(shape, offset, axes=1)
    rho = np.sqrt(np.square(unit).sum(0)) + np.float32(1e-6)
    slope = np.sqrt(np.square(np.tensordot(shape.T, unit, axes=1)).sum(0)) + np.float32(1e-9)
    return rho * (rho - 1) / slope


def _place(config: PhantomConfig, rng: np.random.Generator) -> Placement:
    """One jittered lattice of nuclei: columns along z, neighbours out of step by a half.

    With columns 1.5 diameters apart and nuclei 1.2 diameters apart within each, nuclei fill
    about a fifth of the volume, and almost every column shows a nucleus in every slice.
    """
    preset = config.tissue
    extent = np.array(config.shape) * np.array(config.voxel_size)
    d = preset.diameter
    pitch = d * np.array([1.2, 1.47, 1.47])
    low, count = -1.2 * pitch, np.ceil(extent / pitch).astype(int) + 4
    cells = np.stack(np.meshgrid(*map(np.arange, count), indexing="ij"), -1).reshape(-1, 3)
    place = cells.astype(np.float64)
    place[:, 0] += np.mod(0.5 * cells[:, 1] + 0.37 * cells[:, 2], 1.0)
    place[:, 2] += 0.5 * (cells[:, 1] % 2)
    jitter = rng.uniform(-1, 1, place.shape) * np.array([0.05, 0.1, 0.1])
    phase = rng.uniform(-1, 0, 3)
    centre = (place + jitter + phase) * pitch + low
    n = len(centre)
    shape, axes = _ellipsoids(rng, 0.5 * d * rng.uniform(0.93, 1.06, n), preset.elongation)
    size = axes.mean(axis=1)

    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    cut = np.where(rng.random(n) < preset.notch, rng.uniform(0.3, 0.5, n), 0.0) * size
    notch = np.concatenate([centre + direction * 1.12 * size[:, None], cut[:, None]], axis=1)

    nucleoli = _nucleoli(preset, rng, centre=centre, shape=shape)
    return Placement(
        centre=centre,
        shape=shape,
        size=size,
        notch=notch,
        tone=rng.random((n, 4)),
        nucleolus_centre=nucleoli[0],
        nucleolus_shape=nucleoli[1],
        nucleolus_size=nucleoli[2],
        nucleolus_tone=rng.random(len(nucleoli[0])),
    )


def _nucleoli(
    preset: Preset, rng: np.random.Generator, *, centre: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres `[m, 3]`, shapes `[m, 3, 3]` and radii `[m]` of the nucleoli of these nuclei."""
    n = len(centre)
    # The first nucleolus sits near the middle, the others around it, so that they stay apart.
    per = rng.integers(preset.nucleoli[0], preset.nucleoli[1], n, endpoint=True)
    owner = np.repeat(np.arange(n), per)
    rank = np.concatenate([np.arange(k) for k in per])
    m = len(owner)
    lean = rng.standard_normal((m, 3))
    lean /= np.linalg.norm(lean, axis=1, keepdims=True)
    lean[rank % 2 == 1] = -np.roll(lean, 1, axis=0)[rank % 2 == 1]
    out = rng.uniform(0.3, 0.5, m)[:, None]
    inner = np.einsum("mij,mj->mi", np.linalg.inv(shape[owner]), lean * out)
    low_r, high_r = preset.nucleolus_radius
    radius = rng.uniform(low_r, high_r, m) * np.where(rank > 1, 0.6, np.where(rank > 0, 0.8, 1.0))
    stretched, _ = _ellipsoids(rng, radius, preset.nucleolus_stretch)
    return centre[owner] + inner, stretched, radius


def best_placement(
    config: PhantomConfig,
    points: list[tuple[float, np.ndarray]],
    *,
    area: float,
    candidates: int,
) -> Placement:
    """The candidate whose slices come nearest to 20 % nuclei and 0.6 % nucleoli.

    A field a few nuclei wide would by chance hold half or twice its share; the breast
    biopsies do not. Fields of many nuclei need no choice, so they get fewer candidates.

    points: z in nm and coordinates `[3, ...]` zyx in nm, of the slices to look at; area: that of
    a slice in nm2.
    """
    columns = area / config.tissue.diameter**2
    best, best_score = None, math.inf
    for index in range(max(1, min(candidates, int(40 * candidates / columns)))):
        placement = _place(config, texture.generator(config.stream, 0, index))
        nuclei, nucleoli = np.array([placement.cover(*p) for p in points]).T
        score = float(np.abs(nuclei - 0.2).max()) / 0.04 + abs(nuclei.mean() - 0.2) / 0.015
        score += abs(nucleoli.mean() - 0.006) / 0.0015
        score += (np.maximum(0.003 - nucleoli, 0) / 0.003).mean() * 4
        score += (np.maximum(nucleoli - 0.01, 0) / 0.003).mean() * 2
        if score < best_score:
            best, best_score = placement, score
    assert best is not None
    best.tone = _best_tones(config, best, points=points)
    return best


def _threshold_dice(grey: np.ndarray, inside: np.ndarray) -> float:
    """Best Dice of `inside` that any threshold on `grey`, of either polarity, reaches."""
    best = 0.0
    for level in np.linspace(float(grey.min()), float(grey.max()), 24):
        for found in (grey >= level, grey <= level):
            best = max(best, 2 * float((found & inside).sum()) / float(found.sum() + inside.sum()))
    return best


def _best_tones(
    config: PhantomConfig, placement: Placement, *, points: list[tuple[float, np.ndarray]]
) -> np.ndarray:
    """Of 16 sets of greys for the cells, `[n, 4]`, the one a threshold separates least.

    A field of four cells would now and then have dark nuclei in light cytoplasm only.
    """
    preset = config.tissue
    owners, insides = [], []
    for z, position in points:
        near = placement.near(z, placement.centre, 2 * preset.diameter)
        each = np.stack([placement.nucleus_distance(k, position) for k in near])
        owners.append(near[each.argmin(axis=0)].ravel())
        insides.append(each.min(axis=0).ravel() < 0)
    owner, inside = np.concatenate(owners), np.concatenate(insides)
    # Reticulum and ribosomes darken cytoplasm by more than heterochromatin does nuclei.
    darker = 8 + 10 * max(preset.reticulum_share, 0.0)
    best, best_score = placement.tone, math.inf
    for index in range(16):
        tone = texture.generator(config.stream, 5, index).random(placement.tone.shape)
        nuclei = texture.between(preset.nucleus_grey, tone[owner, 0])
        cytoplasm = texture.between(preset.cytoplasm_grey, tone[owner, 1]) - darker
        score = _threshold_dice(np.where(inside, nuclei, cytoplasm), inside)
        if score < best_score:
            best, best_score = tone, score
    return best
