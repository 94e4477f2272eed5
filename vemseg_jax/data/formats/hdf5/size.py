"""Axes, voxel size and position as HDF5 files record them: ilastik, elf, CREMI, Imaris."""

import json
from typing import Any

import h5py
import numpy as np

from vemseg_jax.data.formats.axes import SPATIAL
from vemseg_jax.data.formats.chunked.size import OTHERWISE, of_attributes
from vemseg_jax.data.formats.physical_size import Recorded, nanometres, offset_in_voxels
from vemseg_jax.errors import InputError

# Of CREMI and funlib, in the order of the dimensions.
_ATTRIBUTES = ("resolution", "voxel_size", "offset", "units", "unit")


def recorded_axes(dataset: h5py.Dataset) -> str | None:
    """Axes as ilastik's tags, labels of the dimensions or the format itself record them.

    Raises:
      InputError: tags that cannot be read.
    """
    if _imaris_image(dataset) is not None:
        return SPATIAL
    axes = _axis_tags(dataset)
    if axes is None:
        named = "".join(dim.label[:1].lower() for dim in dataset.dims)
        if len(named) == dataset.ndim and set(named) <= set("zyxct"):
            axes = named
    if axes is None and dataset.ndim == 3 and _element_size(dataset) is not None:
        axes = SPATIAL
    return axes


def recorded(dataset: h5py.Dataset, axes: str) -> Recorded:
    """Voxel size and position.

    Args:
      dataset: of any order of axes.
      axes: that are taken, one letter a dimension.
    """
    own = recorded_axes(dataset)
    image = _imaris_image(dataset)
    if image is not None:
        return _imaris(dataset, image) if axes == SPATIAL else Recorded()
    attributes = {name: _plain(dataset.attrs.get(name)) for name in _ATTRIBUTES}
    grid = of_attributes(attributes, own or axes, dataset.ndim)
    found = grid.recorded(axes)
    element = _element_size(dataset)
    if element is None:
        return found
    z, y, x = (nanometres(size, "um") for size in element)
    if own not in (None, axes) and not z == y == x:
        return Recorded(note=OTHERWISE)
    note = "" if z and y and x else f"its element_size_um is {element}"
    return Recorded((z, y, x), found.offset, note)


def _element_size(dataset: h5py.Dataset) -> list[Any] | None:
    """`element_size_um`, always z, y, x."""
    element = _plain(dataset.attrs.get("element_size_um"))
    return element if isinstance(element, list) and len(element) == 3 else None


def _axis_tags(dataset: h5py.Dataset) -> str | None:
    text = dataset.attrs.get("axistags")
    if text is None:
        return None
    try:
        return "".join(str(tag["key"]) for tag in json.loads(text)["axes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{dataset.file.filename}/{dataset.name.lstrip('/')}: its axistags are damaged"
            f" ({error}); correct or delete the attribute"
        ) from error


def _plain(value: Any) -> Any:
    """An attribute as lists, numbers and strings."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _imaris_image(dataset: h5py.Dataset) -> h5py.Group | None:
    """What an Imaris file says of its image; None for other files and other datasets."""
    parts = str(dataset.name).strip("/").split("/")
    image = dataset.file.get("DataSetInfo/Image")
    inside = len(parts) == 5 and parts[0] == "DataSet" and parts[-1] == "Data"
    return image if inside and dataset.ndim == 3 and isinstance(image, h5py.Group) else None


def _imaris(dataset: h5py.Dataset, image: h5py.Group) -> Recorded:
    """From the extent of the image, and the voxels of the level, without their padding."""
    unit = _text(image, "Unit") or None
    sizes, offsets = [], []
    for index, (axis, stored) in enumerate(zip("XYZ", dataset.shape[::-1], strict=True)):
        try:
            low, high = (float(_text(image, f"Ext{end}{index}")) for end in ("Min", "Max"))
            # Files without the sizes of channels have that of the finest level.
            count = int(_text(dataset.parent, f"ImageSize{axis}") or _text(image, axis) or stored)
            size = (high - low) / count
        except (ValueError, ZeroDivisionError):
            return Recorded(note="its extent is not recorded")
        sizes.append(nanometres(size, unit))
        offsets.append(offset_in_voxels(low, size))
    x, y, z = sizes
    note = "" if x and y and z else f"its extent is recorded in {unit or 'no unit'}"
    return Recorded((z, y, x), (offsets[2], offsets[1], offsets[0]), note)


def _text(group: h5py.Group, name: str) -> str:
    """An attribute of Imaris, which writes text as an array of characters; empty without."""
    value = group.attrs.get(name)
    if value is None:
        return ""
    return b"".join(np.atleast_1d(np.asarray(value, "S"))).decode("latin-1").strip()
