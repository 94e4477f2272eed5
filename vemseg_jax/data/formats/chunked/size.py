"""Voxel size and position as chunked arrays record them, dimension by dimension."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vemseg_jax.data.formats.physical_size import Recorded, nanometres, offset_in_voxels, unit_note

OTHERWISE = "its axes are taken otherwise than it records them"
_SPATIAL = "zyx"
_LEVEL = re.compile(r"s(\d+)")


class Grid(NamedTuple):
    """What is recorded of every dimension of an array, in the order of storage.

    Attributes:
      axes: one letter a dimension; None where not recorded.
      sizes: nm; empty where not recorded.
      offsets: of the first voxel in voxels; nan where the record cannot be used; empty where not
        recorded.
      note: why sizes are not read, for people.
      scale: the sizes as numbers of whatever unit; empty where not recorded.
    """

    axes: str | None = None
    sizes: tuple[float | None, ...] = ()
    offsets: tuple[float, ...] = ()
    note: str = ""
    scale: tuple[float, ...] = ()

    def recorded(self, axes: str) -> Recorded:
        """Sizes and offset as zyx.

        Args:
          axes: that are taken. Where they are not the recorded ones, nobody knows whether the
            sizes belong to the dimensions or to their names: none are taken.
        """
        differs = len(set(self.sizes)) > 1 or any(self.offsets)
        if differs and self.axes not in (None, axes):
            return Recorded(note=OTHERWISE)
        at = [axes.index(name) for name in _SPATIAL]
        z, y, x = (self.sizes[i] for i in at) if self.sizes else (None, None, None)
        offset = _picked(self.offsets, at)
        if None not in (z, y, x):
            return Recorded((z, y, x), offset)
        scale = _picked(self.scale, at)
        # 1 is what programs write that know none.
        known = scale is not None and min(scale) > 0 and max(scale) < math.inf
        bare = scale if known and scale != (1, 1, 1) and z is y is x is None else None
        return Recorded((z, y, x), offset, self.note, bare)


def _picked(values: tuple[float, ...], at: list[int]) -> tuple[float, float, float] | None:
    z, y, x = (values[i] for i in at) if values else (None, None, None)
    return None if z is None or y is None or x is None else (z, y, x)


def of_transformations(
    axes: str, units: Sequence[object], transformations: Sequence[Mapping[str, Any]]
) -> Grid:
    """Of an OME-Zarr array.

    Args:
      axes: one letter a dimension.
      units: of the dimensions.
      transformations: scales and translations of the array, then those of the whole image, in
        the order in which they apply.
    """
    scale, position = [1.0] * len(axes), [0.0] * len(axes)
    for step in transformations:
        if step["type"] == "scale":
            factors = [float(value) for value in step["scale"]]
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            position = [a * b for a, b in zip(position, factors, strict=True)]
        elif step["type"] == "translation":
            moved = [float(value) for value in step["translation"]]
            position = [a + b for a, b in zip(position, moved, strict=True)]
    grid = _grid(axes, scale, units, position)
    spatial = [unit for name, unit in zip(axes, units, strict=True) if name in _SPATIAL]
    note = unit_note(spatial) or f"its scale is {', '.join(f'{s:g}' for s in scale)}"
    return grid._replace(note=note)


def of_precomputed(scale: Mapping[str, Any]) -> Grid:
    """Of a scale of a neuroglancer volume, whose axes are x, y, z, channel.

    Raises:
      ValueError, TypeError, KeyError: its resolution is not three lengths.
    """
    x, y, z = (float(size) for size in scale["resolution"])
    start = [float(value) for value in scale.get("voxel_offset") or (0, 0, 0)]
    sizes = tuple(nanometres(size, "nm") for size in (x, y, z))
    offsets = (start[0], start[1], start[2], 0.0)
    return Grid("xyzc", (*sizes, None), offsets, f"its resolution is {x:g}, {y:g}, {z:g}")


def of_n5(attributes: Mapping[str, Any], group: Mapping[str, Any], *, name: str, rank: int) -> Grid:
    """Of an N5 dataset, whose dimensions begin with the fastest, x.

    `transform` (the COSEM project) and `pixelResolution` are those of the dataset; the latter, of
    N5 viewers, and `resolution`, of Paintera, may also be that of full resolution, to which
    `downsamplingFactors` or the `scales` of the group apply.

    Args:
      attributes: of the dataset.
      group: of the group that holds it; empty where there is none.
      name: of the dataset in its group, such as s0.
      rank: number of dimensions.
    """
    for holder in (attributes, _multiscale(group, name)):
        own = _of_transform(holder, rank)
        if own is not None:
            return own if _is_fortran(holder) else _reverse(own)
    level = _LEVEL.fullmatch(name)
    known = _scale_of(attributes)
    shared = not known and level is not None
    if shared:
        known = _scale_of(group)
    axes = letters(attributes.get("axes")) or letters(group.get("axes"))
    if not known:
        return Grid(axes, (), _bare_offset(attributes, rank))
    scale, units, origin = known
    origin = attributes.get("offset", origin)
    factors = _factors(attributes, group if shared else {}, int(level[1]) if level else 0, rank)
    if factors is None:
        return Grid(axes, note=f"its group records the size of s0, not that of {name}")
    axes = axes or ("xyz" if rank == 3 else None)
    scale = [_times(size, factor) for size, factor in zip(scale, factors, strict=False)]
    return _grid(axes, scale, _listed_units(units, rank), origin, rank=rank)


def of_attributes(attributes: Mapping[str, Any], axes: str | None, rank: int) -> Grid:
    """Of a plain Zarr array or an HDF5 dataset: `transform`, or `resolution` with `offset`.

    Both are listed in the order of the dimensions; funlib says `voxel_size`, CREMI `resolution`.
    """
    own = _of_transform(attributes, rank)
    if own is not None:
        return own._replace(axes=axes or own.axes)
    # `pixelResolution` is x first, whatever the order of the dimensions: it is left alone.
    known = _scale_of({k: v for k, v in attributes.items() if k != "pixelResolution"})
    if not known:
        return Grid(axes, (), _bare_offset(attributes, rank))
    scale, units, origin = known
    return _grid(axes, scale, _listed_units(units, rank), origin, rank=rank)


def letters(names: object) -> str | None:
    """Recorded names of dimensions as one letter each, None where they are no axes."""
    if not isinstance(names, Sequence) or not names:
        return None
    if not all(isinstance(name, str) and name[:1].lower() in tuple("zyxct") for name in names):
        return None
    return "".join(name[0].lower() for name in names)


def _of_transform(attributes: Mapping[str, Any], rank: int) -> Grid | None:
    """`transform` of the COSEM project, in its own order; None where there is none."""
    transform = attributes.get("transform")
    if not isinstance(transform, Mapping) or letters(transform.get("axes")) is None:
        return None
    axes = letters(transform["axes"])
    if axes is None or len(axes) != rank:
        return None
    units = _listed_units(transform.get("units"), rank)
    return _grid(axes, transform.get("scale"), units, transform.get("translate"))


def _multiscale(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entry of a dataset in `multiscales` of a group of the COSEM project; empty without."""
    try:
        datasets = group["multiscales"][0]["datasets"]
        return next(entry for entry in datasets if entry["path"].strip("/") == name)
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration):
        return {}


def _is_fortran(attributes: Mapping[str, Any]) -> bool:
    return str(attributes["transform"].get("ordering", "C")).upper() == "F"


def _reverse(grid: Grid) -> Grid:
    axes = grid.axes[::-1] if grid.axes else None
    return Grid(axes, grid.sizes[::-1], grid.offsets[::-1], grid.note, grid.scale[::-1])


def _scale_of(attributes: Mapping[str, Any]) -> tuple[list[Any], object, object] | None:
    """Sizes, unit or units, and offset, each as recorded; None where no size is."""
    pixel = attributes.get("pixelResolution")
    origin = attributes.get("offset")
    units = attributes.get("units") or attributes.get("unit")
    if isinstance(pixel, Mapping) and (sizes := _list(pixel.get("dimensions"))):
        return sizes, pixel.get("unit", units), origin
    if sizes := _list(pixel):
        # A bare list is in pixels, see N5SingleScaleMetadataParser of n5-universe.
        return sizes, units or "pixel", origin
    for key in ("resolution", "voxel_size"):
        if sizes := _list(attributes.get(key)):
            return sizes, units, origin
    return None


def _bare_offset(attributes: Mapping[str, Any], rank: int) -> tuple[float, ...]:
    """An offset beside no voxel size: only 0 says anything in voxels."""
    listed = _list(attributes.get("offset")) or []
    return tuple(offset_in_voxels(value, None) for value in listed) if len(listed) == rank else ()


def _factors(
    attributes: Mapping[str, Any], group: Mapping[str, Any], level: int, rank: int
) -> list[Any] | None:
    """By how much a level is coarser than the size that is recorded; None where not recorded."""
    if own := _list(attributes.get("downsamplingFactors")):
        return own
    if not group:
        return [1] * rank
    for key in ("scales", "downsamplingFactors"):
        listed = _list(group.get(key)) or []
        if len(listed) > level and (factors := _list(listed[level])):
            return factors
    return [1] * rank if level == 0 else None


def _list(value: object) -> list[Any] | None:
    return list(value) if isinstance(value, list | tuple) else None


def _times(size: object, factor: object) -> float:
    try:
        return float(str(size)) * float(str(factor))
    except ValueError:
        return math.nan


def _listed_units(units: object, rank: int) -> list[object]:
    """One unit a dimension; None for those that are not recorded."""
    if isinstance(units, str) or units is None:
        return [units] * rank
    if isinstance(units, Sequence) and len(units) == rank:
        return list(units)
    return [None] * rank


def _grid(
    axes: str | None,
    scale: object,
    units: Sequence[object],
    position: object,
    *,
    rank: int | None = None,
) -> Grid:
    """Sizes in nm and offset in voxels; of a position that is not recorded, 0."""
    rank = len(axes) if axes is not None else rank
    if not isinstance(scale, Sequence) or len(scale) != rank or len(units) != rank:
        return Grid(axes)
    if not isinstance(position, Sequence) or isinstance(position, str) or len(position) != rank:
        position = [0.0] * rank
    sizes = tuple(nanometres(s, u) for s, u in zip(scale, units, strict=True))
    offsets = tuple(offset_in_voxels(p, s) for p, s in zip(position, scale, strict=True))
    note = unit_note(units) or f"its voxel size is {', '.join(str(s) for s in scale)}"
    return Grid(axes, sizes, offsets, note, tuple(_times(s, 1) for s in scale))
