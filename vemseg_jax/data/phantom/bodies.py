"""Small bodies of the phantom's cells: where organelles lie and which shape they have.

Random numbers are drawn per lattice plane, as those of the textures are. Lengths are in nm,
coordinates in the order zyx.
"""

import dataclasses
import math

import numpy as np
from scipy.spatial import cKDTree

from vemseg_jax.data.phantom import texture


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
    grid: texture.PlaneGrid,
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
        rng = texture.generator(seed, channel, index)
        cells = np.stack(np.meshgrid([index], *map(np.arange, shape), indexing="ij"), axis=-1)
        centre = (cells.reshape(-1, 3) + rng.uniform(-0.45, 0.45, (cells.size // 3, 3))) * pitch
        centre[:, 1:] += np.array(grid.origin) - 2 * pitch
        n = len(centre)
        first = rng.uniform(*longest, n)
        axes = np.stack([first, *(first * rng.uniform(*aspect, n) for _ in range(2))], axis=1)
        turn = texture.rotations(rng, n)
        layers.append(Bodies(centre, turn, axes, rng.random(n), rng.random(n)))
    joined = {
        f.name: np.concatenate([getattr(layer, f.name) for layer in layers])
        for f in dataclasses.fields(Bodies)
    }
    bodies = Bodies(**joined).without_overlap()
    return bodies.select(np.abs(bodies.centre[:, 0] - z) < bodies.half_extent()[:, 0])
