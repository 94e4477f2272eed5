"""Chunked arrays that tensorstore has drivers for: OME-Zarr, plain Zarr, N5, precomputed.

Local folders and, through tensorstore's stores, `gs://`, `s3://` and `http(s)://`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from vemseg_jax.data.formats.axes import Axes, arrange, resolve_axes
from vemseg_jax.data.formats.chunked.ome_size import grid_of, grid_of_array, read_multiscale
from vemseg_jax.data.formats.chunked.size import Grid, letters, of_attributes, of_n5, of_precomputed
from vemseg_jax.data.formats.chunked.stored import find_holes
from vemseg_jax.data.formats.holes import Holes, missing_chunk
from vemseg_jax.data.formats.slice_source import SliceSource, numbered
from vemseg_jax.data.formats.stores import Location, Store
from vemseg_jax.data.formats.value_range import make_value_range
from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError


class Found(NamedTuple):
    """An array of a container and what its metadata say of its dimensions."""

    array: ts.TensorStore
    grid: Grid


def find_array(store: Store) -> Found | None:
    """The array at a location; None where there is no chunked array at all.

    Raises:
      InputError: metadata that cannot be used, or several arrays and none chosen.
    """
    group = store.json("zarr.json")
    if group is not None:
        attributes = group.get("attributes") or {}
        if group.get("node_type") == "array":
            names = group.get("dimension_names")
            return _plain(store, store.open("zarr3"), attributes, names, "zarr3")
        if isinstance(attributes.get("ome"), dict) and "multiscales" in attributes["ome"]:
            return _ome(store, attributes["ome"], "zarr3")
        raise _no_array(store, "a Zarr group without multiscales")
    if store.read(".zarray") is not None:
        attributes = store.json(".zattrs") or {}
        names = attributes.get("_ARRAY_DIMENSIONS")
        return _plain(store, store.open("zarr"), attributes, names, "zarr")
    attributes = store.json(".zattrs")
    if attributes is not None and "multiscales" in attributes:
        return _ome(store, attributes, "zarr")
    if attributes is not None or store.read(".zgroup") is not None:
        raise _no_array(store, "a Zarr group without multiscales")
    info = store.json("info")
    if info is not None and "scales" in info:
        return _precomputed(store, info)
    n5 = store.json("attributes.json")
    if n5 is not None or store.read("s0/attributes.json") is not None:
        return _n5(store, n5 or {})
    return None


def open_chunked(
    store: Store, *, label: bool, axes: Axes, value_range: tuple[float, float] | None
) -> SliceSource | None:
    """The slices of a chunked array; None where there is none at the location.

    Raises:
      InputError: it cannot be used.
    """
    try:
        found = find_array(store)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{store.path}: damaged metadata ({type(error).__name__}: {error}); copy or export it"
            " again"
        ) from error
    if found is None:
        return None
    path, array = store.path, found.array
    dtype = np.dtype(array.dtype.numpy_dtype)
    if label and dtype.kind not in "uib":
        raise InputError(f"{path}: label of type {dtype}; an integer type is needed")
    resolved, origin = resolve_axes(path, array.shape, recorded=found.grid.axes, given=axes)
    view = arrange(path, array, resolved)
    mapped = None if label else make_value_range(path, dtype, value_range)
    recorded = found.grid.recorded(resolved)

    def look(is_label: bool) -> Holes | ts.TensorStore | None:
        try:
            holes = find_holes(store, array, view, resolved, label=is_label)
        except (ValueError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: {missing_chunk(error) or reason(error)}") from error
        return arrange(path, holes, resolved) if isinstance(holes, ts.TensorStore) else holes

    return SliceSource(
        path=path,
        array=view,
        names=numbered(int(view.shape[0])),
        has_files=False,
        voxel_size=recorded.size,
        axes=found.grid.axes,
        axes_from=origin,
        value_range=mapped,
        offset=recorded.offset,
        bare_size=recorded.bare,
        size_note=recorded.note,
        find_holes=look,
    )


def _no_array(store: Store, what: str) -> InputError:
    inner = ", ".join(store.names()[:20])
    there = f"it holds: {inner}" if inner else "name the array in it"
    return InputError(
        f"{store.path}: {what}, not an OME-Zarr image or an array; give the path of one array in"
        f" it ({there})"
    )


def _plain(
    store: Store, array: ts.TensorStore, attributes: dict[str, Any], names: object, driver: str
) -> Found:
    """A Zarr array by itself: of the image around it, or with its own attributes."""
    above, name = _above(store)
    marks = above.json("zarr.json" if driver == "zarr3" else ".zattrs") if above else None
    if driver == "zarr3":
        marks = ((marks or {}).get("attributes") or {}).get("ome")
    if above is not None and isinstance(marks, dict) and "multiscales" in marks:
        grid = grid_of_array(above.path, name, marks, driver)
        if grid is not None and grid.axes is not None and len(grid.axes) == array.rank:
            return Found(array, grid)
    axes = letters(names) or letters(attributes.get("axis_names"))
    if axes is not None and len(axes) != array.rank:
        axes = None
    return Found(array, of_attributes(attributes, axes, array.rank))


def _ome(store: Store, attributes: dict[str, Any], driver: str) -> Found:
    """Level 0 of an OME-Zarr 0.4 or 0.5 image."""
    multiscale = read_multiscale(store.path, attributes, driver)
    array = store.open(driver, multiscale.datasets[0].path)
    grid = grid_of(multiscale)
    if grid.axes is None or len(grid.axes) != array.rank:
        raise InputError(
            f"{store.path}: {array.rank} dimensions, but axes {grid.axes} are recorded"
        )
    return Found(array, grid)


def _precomputed(store: Store, info: dict[str, Any]) -> Found:
    """The finest scale of a neuroglancer volume, whose axes are x, y, z, channel."""
    array = store.open("neuroglancer_precomputed", scale_index=0)
    try:
        return Found(array, of_precomputed(info["scales"][0]))
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            f"{store.path}/info: scale 0 has no resolution of three lengths; write it again"
        ) from None


def _n5(store: Store, attributes: dict[str, Any]) -> Found:
    """An N5 dataset, or level s0 of a group of them, whose first axis varies fastest."""
    if "dimensions" in attributes:
        array = store.open("n5")
        above, name = _above(store)
        group = (above.json("attributes.json") if above else None) or {}
        return Found(array, of_n5(attributes, group, name=name, rank=array.rank))
    inner = store.json("s0/attributes.json")
    if inner is None or "dimensions" not in inner:
        raise _no_array(store, "an N5 group")
    array = store.open("n5", "s0")
    return Found(array, of_n5(inner, attributes, name="s0", rank=array.rank))


def _above(store: Store) -> tuple[Store | None, str]:
    """What lies around an array, and the array's name in it; None where it cannot be reached."""
    parent: Location
    if isinstance(store.path, Path):
        path = store.path.absolute()
        parent, name = path.parent, path.name
    else:
        parent, _, name = store.path.rstrip("/").rpartition("/")
    try:
        above = Store(parent)
        above.read("zarr.json")
    except InputError:
        # A server may show the array alone.
        return None, name
    return above, name
