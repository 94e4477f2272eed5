"""Triangle meshes of objects, from the share of each cell of a grid that they fill."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from scipy import sparse
from skimage.measure import marching_cubes

# Taubin 1995, "A signal processing approach to fair surface design": a step that smooths, then a
# slightly larger one back, so that the volume stays.
_SMOOTH, _BACK, _ROUNDS = 0.5, -0.53, 10


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
      vertices: `[v, 3]` float64, µm, order x y z.
      faces: `[f, 3]` int64, vertices counter-clockwise seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray


class ObjectGrid:
    """Collects one object, slab by slab, on cells of whole voxels.

    Args:
      low, high: bounding box, voxels zyx, `high` not included.
      cells: at most so many in the grid; as many voxels make a cell as that takes.
      voxel_size: zyx; cells are kept as near to cubes as whole voxels allow.
    """

    def __init__(
        self,
        low: Sequence[int],
        high: Sequence[int],
        *,
        cells: int,
        voxel_size: Sequence[float],
    ):
        self._low = np.asarray(low, np.int64)
        size = np.asarray(high, np.int64) - self._low
        self._factors = cell_factors(size, cells=cells, voxel_size=voxel_size)
        per_cell = int(np.prod(self._factors))
        dtype = np.uint8 if per_cell < 1 << 8 else np.uint16 if per_cell < 1 << 16 else np.uint32
        self._counts = np.zeros(tuple(-(-size // self._factors)), dtype)

    def add(self, mask: np.ndarray, *, z: int) -> None:
        """Takes planes of the object: `mask` `[n, y, x]` bool over its bounding box in y and x.

        Args:
          mask: the planes.
          z: the first of them, in voxels.
        """
        counts = mask.astype(self._counts.dtype)
        for axis in (2, 1):
            if self._factors[axis] > 1:
                starts = np.arange(0, counts.shape[axis], self._factors[axis])
                counts = np.add.reduceat(counts, starts, axis=axis, dtype=counts.dtype)
        rows = (z - self._low[0] + np.arange(len(mask))) // self._factors[0]
        np.add.at(self._counts, rows, counts)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """The surface where cells are half full: vertices in voxels zyx, and faces."""
        padded = np.pad(self._counts, 1)
        half = int(np.prod(self._factors)) / 2
        # Counts are whole, the level is not: no vertex falls on the middle of a cell. Nor is it
        # halfway, where cells that meet at an edge are joined one way on one side of a face and
        # another way on the other, which leaves holes. What fills no cell by half is drawn around
        # its fullest ones.
        level = min(np.ceil(half), int(self._counts.max())) - 0.501
        vertices, faces, _, _ = marching_cubes(padded.astype(np.float32), level)
        centre = (vertices - 1 + 0.5) * self._factors - 0.5
        return smooth(centre, faces) + self._low, faces


def cell_factors(size: np.ndarray, *, cells: int, voxel_size: Sequence[float]) -> np.ndarray:
    """Voxels zyx of a cell, so that a box of `size` voxels has at most `cells` cells."""
    factors = np.ones(3, np.int64)
    while np.prod(-(-size // factors)) > cells:
        side = factors * np.asarray(voxel_size, np.float64)
        # An axis already down to one cell gains nothing by more.
        side[factors >= size] = np.inf
        factors[np.argmin(side)] += 1
    return factors


def smooth(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Takes the steps of voxels off a mesh and keeps its volume; vertices `[v, 3]`."""
    a = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    b = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    n = len(vertices)
    edges = sparse.coo_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(n, n))
    weights = edges.tocsr()
    weights = sparse.diags_array(1 / weights.sum(axis=1)) @ weights
    moved = vertices.astype(np.float64)
    for _ in range(_ROUNDS):
        for step in (_SMOOTH, _BACK):
            moved = moved + step * (weights @ moved - moved)
    return moved


def mesh_micrometres(vertices_zyx: np.ndarray, faces: np.ndarray) -> Mesh:
    """A mesh from vertices in µm zyx, its faces turned outwards."""
    vertices = np.ascontiguousarray(vertices_zyx[:, ::-1])
    faces = faces.astype(np.int64)
    if signed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return Mesh(vertices, faces)


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume inside a closed mesh, negative where its faces point inwards."""
    corners = (vertices - vertices.mean(axis=0))[faces]
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Writes `.ply` (binary) or `.obj`, µm, order x y z."""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False)
    body.export(path)
