"""The two readings of a volume: which objects there are, then what they are like."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vemseg_jax.data.store.volume import Volume
from vemseg_jax.measure.components import Components, ComponentStream
from vemseg_jax.measure.meshes import Mesh, ObjectGrid, mesh_micrometres, write_mesh
from vemseg_jax.measure.objects import Finished, ObjectReader, Overlaps
from vemseg_jax.measure.options import DROP, FLAG, Options
from vemseg_jax.measure.rendering import MOST_OBJECTS, Solid, cells_per_object
from vemseg_jax.measure.results import Body, Nucleolus, Nucleus, sphericity
from vemseg_jax.measure.selection import Selection, planes_per_slab, read_slabs
from vemseg_jax.measure.surface import choose_directions
from vemseg_jax.progress import track

# Of the memory budget, for the grids that shapes are collected on; the rest is for slabs.
_GRID_SHARE = 0.25
# A mesh has cells of one voxel up to this size of its bounding box.
_MESH_CELLS = 8_000_000
# A nucleolus belongs to a nucleus that holds this share of its voxels.
_INSIDE = 0.5
_STRUCTURES = ("nucleus", "nucleolus")


@dataclasses.dataclass(frozen=True)
class Found:
    """What the readings found.

    Attributes:
      nuclei, nucleoli: nucleoli are None where there was no label of them.
      left_out: objects that are not among them, by reason.
      solids: coarse meshes to draw.
    """

    nuclei: tuple[Nucleus, ...]
    nucleoli: tuple[Nucleolus, ...] | None
    left_out: dict[str, int]
    solids: list[Solid]


class Readings:
    """Reads the labels of a selection twice.

    Args:
      volume: the volume.
      selection: its labels, scale and slices.
      options: filters, connectivity, meshes and memory.
      folder: where meshes are written.
    """

    def __init__(self, volume: Volume, selection: Selection, *, options: Options, folder: Path):
        self._volume, self._selection = volume, selection
        self._options, self._folder = options, folder
        self._directions = choose_directions([s / 1000 for s in selection.voxel_size])
        self._planes = planes_per_slab(
            selection,
            options.memory_bytes,
            share=1 - _GRID_SHARE,
            kept=self._directions.planes,
        )
        self._overlaps = Overlaps()
        self._left_out: dict[str, int] = {}
        self._solids: list[Solid] = []

    def read(self) -> Found:
        """Both readings; meshes are written during the second."""
        components = self._find()
        readers = self._measure(components)
        bodies = [self._bodies(c, r) for c, r in zip(components, readers, strict=True)]
        nucleoli = self._nucleoli(bodies[1]) if len(bodies) > 1 else None
        mine: dict[int, list[Nucleolus]] = {body.id: [] for body in bodies[0]}
        for one in nucleoli or ():
            if one.nucleus is not None:
                mine[one.nucleus].append(one)
        nuclei = tuple(
            Nucleus(body, None if nucleoli is None else tuple(mine[body.id])) for body in bodies[0]
        )
        return Found(nuclei, nucleoli, self._left_out, self._solids)

    def _slabs(self, what: str) -> Iterator[tuple[int, list[np.ndarray]]]:
        slabs = read_slabs(self._selection, self._planes)
        return track(
            slabs,
            total=self._selection.shape[0],
            what=what,
            unit="slice",
            size=lambda slab: len(slab[1][0]),
        )

    def _find(self) -> list[Components]:
        """The first reading."""
        voxel = self._selection.voxel_volume
        limits = (self._options.min_nucleus_um3, self._options.min_nucleolus_um3)
        streams = [
            ComponentStream(
                plane=self._selection.plane,
                connectivity=self._options.connectivity,
                min_voxels=max(1, math.ceil(limit / voxel - 1e-9)),
            )
            for _, limit in zip(self._selection.names, limits, strict=False)
        ]
        for _, slabs in self._slabs("finding objects"):
            for stream, slab in zip(streams, slabs, strict=True):
                stream.add(slab)
        components = [stream.finish() for stream in streams]
        for structure, stream in zip(("nuclei", "nucleoli"), streams, strict=False):
            self._left_out[f"{structure}_too_small"] = stream.dropped
        return components

    def _measure(self, components: list[Components]) -> list[ObjectReader]:
        """The second reading; writes the meshes on the way."""
        selection = self._selection
        readers = []
        shown = _largest(components, MOST_OBJECTS)
        cells = [cells_per_object(sum(len(c) for c in components))]
        if self._options.meshes:
            (self._folder / "meshes").mkdir()
            cells.append(self._mesh_cells(components))
        for structure, found, visible in zip(_STRUCTURES, components, shown, strict=False):
            readers.append(
                ObjectReader(
                    found,
                    directions=self._directions,
                    plane=selection.plane,
                    voxel_size=selection.voxel_size,
                    cells=cells,
                    finished=self._keeper(structure, found, visible),
                )
            )
        for _, slabs in self._slabs("measuring"):
            ids = [r.number(slab) for r, slab in zip(readers, slabs, strict=True)]
            if len(ids) > 1:
                self._overlaps.add(ids[1], ids[0])
            for reader, numbers in zip(readers, ids, strict=True):
                reader.collect(numbers)
        return readers

    def _mesh_cells(self, components: list[Components]) -> int:
        """Cells of one mesh, so that the grids of all that are open at once fit."""
        most = 1
        for found in components:
            low, high = found.table.low[:, 0], found.table.high[:, 0]
            change = np.zeros(self._selection.shape[0] + self._planes + 1, np.int64)
            np.add.at(change, low, 1)
            np.add.at(change, high + self._planes, -1)
            most = max(most, int(np.cumsum(change).max()))
        # Two bytes a cell while an object is read, and about 16 more while it is meshed.
        room = self._options.memory_bytes * _GRID_SHARE / (2 * len(components) * most + 16)
        return int(np.clip(room, 32**3, _MESH_CELLS))

    def _keeper(self, structure: str, found: Components, visible: np.ndarray) -> Finished:
        def keep(row: int, grids: list[ObjectGrid]) -> None:
            kind = structure
            if (
                structure == "nucleolus"
                and self._assigned(row, int(found.table.voxels[row]))[0] is None
            ):
                if self._options.outside == DROP:
                    return
                kind = "outside"
            if visible[row]:
                self._solids.append(Solid(self._mesh(grids[0]), kind, row + 1))
            for grid in grids[1:]:
                name = f"{structure}_{row + 1:04d}.{self._options.meshes}"
                write_mesh(self._folder / "meshes" / name, self._mesh(grid))

        return keep

    def _mesh(self, grid: ObjectGrid) -> Mesh:
        vertices, faces = grid.mesh()
        return mesh_micrometres(self._selection.micrometres(vertices), faces)

    def _assigned(self, row: int, voxels: int) -> tuple[int | None, float]:
        """The row of a nucleolus' nucleus (None: outside), and the share of voxels in the best."""
        nucleus, shared = self._overlaps.largest(row)
        share = shared / voxels
        return (nucleus if share >= _INSIDE else None), share

    def _nucleoli(self, bodies: list[Body]) -> tuple[Nucleolus, ...]:
        every = []
        for body in bodies:
            row, share = self._assigned(body.id - 1, body.voxels)
            every.append(Nucleolus(body, None if row is None else row + 1, share))
        if self._options.outside == FLAG:
            return tuple(every)
        inside = tuple(one for one in every if one.nucleus is not None)
        self._left_out["nucleoli_outside"] = len(every) - len(inside)
        return inside

    def _bodies(self, found: Components, reader: ObjectReader) -> list[Body]:
        selection, table = self._selection, found.table
        scale = np.array([1, selection.step, selection.step])
        first = np.array([selection.z_range[0], 0, 0])
        low = (table.low + first) * scale
        high = np.minimum((table.high + first) * scale, self._volume.shape)
        volumes = table.voxels * selection.voxel_volume
        centroids = selection.micrometres(table.centroids())
        borders = reader.touches_border(selection.shape)
        return [
            Body(
                id=row + 1,
                voxels=int(table.voxels[row]),
                volume_um3=float(volumes[row]),
                surface_um2=float(surface),
                sphericity=sphericity(float(volumes[row]), float(surface)),
                centroid_um=tuple(centroids[row].tolist()),
                low=tuple(low[row].tolist()),
                high=tuple(high[row].tolist()),
                touches_border=bool(borders[row]),
            )
            for row, surface in enumerate(reader.surfaces())
        ]


def _largest(components: list[Components], most: int) -> list[np.ndarray]:
    """Which objects are drawn: all, or the `most` largest of both structures."""
    voxels = np.concatenate([found.table.voxels for found in components])
    shown = np.zeros(len(voxels), bool)
    shown[np.argsort(-voxels, kind="stable")[:most]] = True
    return np.split(shown, np.cumsum([len(found) for found in components])[:-1])
