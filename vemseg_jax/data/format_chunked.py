"""Chunked arrays that tensorstore has drivers for: OME-Zarr, plain Zarr, N5, precomputed.

Local folders and, through tensorstore's stores, `gs://`, `s3://` and `http(s)://`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
import yaozarrs

from vemseg_jax.data.axes import arrange, resolve_axes
from vemseg_jax.data.physical_size import nanometres
from vemseg_jax.data.slice_source import SliceSource, numbered
from vemseg_jax.data.stores import Store
from vemseg_jax.data.value_range import make_value_range
from vemseg_jax.errors import InputError


class Found(NamedTuple):
    """An array of a container and what its metadata say.

    `axes` one letter a dimension, None where not recorded; `sizes` nm by letter.
    """

    array: ts.TensorStore
    axes: str | None
    sizes: dict[str, float | None]


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
            return Found(store.open("zarr3"), _letters(names), {})
        if isinstance(attributes.get("ome"), dict) and "multiscales" in attributes["ome"]:
            return _ome(store, attributes["ome"], "zarr3")
        raise _no_array(store, "a Zarr group without multiscales")
    if store.read(".zarray") is not None:
        names = (store.json(".zattrs") or {}).get("_ARRAY_DIMENSIONS")
        return Found(store.open("zarr"), _letters(names), {})
    attributes = store.json(".zattrs")
    if attributes is not None and "multiscales" in attributes:
        return _ome(store, attributes, "zarr")
    if attributes is not None or store.read(".zgroup") is not None:
        raise _no_array(store, "a Zarr group without multiscales")
    info = store.json("info")
    if info is not None and "scales" in info:
        return _precomputed(store, info)
    n5 = store.json("attributes.json")
    if n5 is not None:
        return _n5(store, n5)
    return None


def open_chunked(
    store: Store, *, label: bool, axes: str | None, value_range: tuple[float, float] | None
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
    if label and found.axes is not None:
        axes = None
    resolved, origin = resolve_axes(path, array.shape, recorded=found.axes, given=axes)
    view = arrange(path, array, resolved)
    mapped = None if label else make_value_range(path, dtype, value_range)
    sizes = found.sizes
    return SliceSource(
        path=path,
        array=view,
        names=numbered(int(view.shape[0])),
        has_files=False,
        voxel_size=(sizes.get("z"), sizes.get("y"), sizes.get("x")),
        axes=found.axes,
        axes_from=origin,
        value_range=mapped,
    )


def _no_array(store: Store, what: str) -> InputError:
    inner = ", ".join(store.names()[:20])
    there = f"it holds: {inner}" if inner else "name the array in it"
    return InputError(
        f"{store.path}: {what}, not an OME-Zarr image or an array; give the path of one array in"
        f" it ({there})"
    )


def _letters(names: object) -> str | None:
    """Recorded names of dimensions as one letter each, None where they are no axes."""
    if not isinstance(names, Sequence) or not names:
        return None
    if not all(isinstance(name, str) and name[:1].lower() in tuple("zyxct") for name in names):
        return None
    return "".join(name[0].lower() for name in names)


def _ome(store: Store, attributes: dict[str, Any], driver: str) -> Found:
    """Level 0 of an OME-Zarr 0.4 or 0.5 image."""
    model = yaozarrs.v05.Image if driver == "zarr3" else yaozarrs.v04.Image
    try:
        image: Any = model.model_validate(attributes)
        multiscale = image.multiscales[0]
        dataset = multiscale.datasets[0]
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            f"{store.path}: not an OME-Zarr 0.4 or 0.5 image ({reason}); give the directory whose"
            " metadata has multiscales"
        ) from error
    array = store.open(driver, dataset.path)
    names = "".join(axis.name.lower() for axis in multiscale.axes)
    if len(names) != array.rank:
        raise InputError(f"{store.path}: {array.rank} dimensions, but axes {names} are recorded")
    scale = np.ones(len(multiscale.axes))
    for transformation in [
        *dataset.coordinateTransformations,
        *(multiscale.coordinateTransformations or ()),
    ]:
        if transformation.type == "scale":
            scale = scale * np.array(transformation.scale, float)
    units = [axis.unit for axis in multiscale.axes]
    sizes = {a: nanometres(s, u) for a, s, u in zip(names, scale, units, strict=True)}
    return Found(array, names, sizes)


def _precomputed(store: Store, info: dict[str, Any]) -> Found:
    """The finest scale of a neuroglancer volume, whose axes are x, y, z, channel."""
    array = store.open("neuroglancer_precomputed", scale_index=0)
    try:
        x, y, z = (float(size) for size in info["scales"][0]["resolution"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            f"{store.path}/info: scale 0 has no resolution of three lengths; write it again"
        ) from None
    return Found(array, "xyzc", {"x": x, "y": y, "z": z})


def _n5(store: Store, attributes: dict[str, Any]) -> Found:
    """An N5 dataset, or level s0 of a group of them, whose first axis varies fastest."""
    inner: dict[str, Any] = attributes
    name = ""
    if "dimensions" not in attributes:
        found = store.json("s0/attributes.json")
        if found is None or "dimensions" not in found:
            raise _no_array(store, "an N5 group")
        inner, name = found, "s0"
    array = store.open("n5", name)
    axes, sizes = _n5_scale({**attributes, **inner}, array.rank)
    return Found(array, axes, sizes)


def _n5_scale(attributes: dict[str, Any], rank: int) -> tuple[str | None, dict[str, float | None]]:
    """Axes in the order of an N5's dimensions, and voxel sizes, as several tools record them.

    `transform` (the COSEM project) lists axes slowest first, as arrays in C have them;
    `resolution` and `pixelResolution` (BigDataViewer, Paintera, N5 viewer) x first.
    """
    transform = attributes.get("transform")
    if isinstance(transform, dict) and _letters(transform.get("axes")):
        axes = _letters(transform["axes"])
        scale, units = transform.get("scale"), transform.get("units")
        return axes[::-1] if axes else None, _sizes(axes, scale, units)
    axes = _letters(attributes.get("axes"))
    pixel = attributes.get("pixelResolution")
    scale, units = attributes.get("resolution"), attributes.get("units")
    if isinstance(pixel, dict):
        scale, units = pixel.get("dimensions"), pixel.get("unit")
    elif isinstance(pixel, list):
        scale = pixel
    if scale is not None and axes is None and rank == 3:
        axes = "xyz"
    return axes, _sizes(axes, scale, units)


def _sizes(axes: str | None, scale: object, units: object) -> dict[str, float | None]:
    if axes is None or not isinstance(scale, Sequence) or len(scale) != len(axes):
        return {}
    if isinstance(units, str) or units is None:
        # Where a unit is left out, these tools mean nanometres.
        units = [units or "nm"] * len(axes)
    if not isinstance(units, Sequence) or len(units) != len(axes):
        return {}
    return {a: nanometres(s, u) for a, s, u in zip(axes, scale, units, strict=True)}
