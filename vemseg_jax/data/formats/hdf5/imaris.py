"""Imaris files (.ims): HDF5 whose datasets are padded with zeros to whole chunks.

Layout: Bitplane, "Imaris 5.5 file format". The true size is an attribute of every channel, the
extent of the volume one of the whole file; both are arrays of single characters.
"""

import re
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vemseg_jax.data.formats.axes import SPATIAL, Axes, check_shape, resolve_axes
from vemseg_jax.data.formats.hdf5 import size as hdf5_size
from vemseg_jax.data.formats.hdf5.parts import find_holes
from vemseg_jax.data.formats.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.formats.value_range import make_value_range
from vemseg_jax.errors import InputError

_ROOT = "DataSet"
_LEVEL_0 = f"{_ROOT}/ResolutionLevel 0"
_INNER = re.compile(rf"{_ROOT}/ResolutionLevel (\d+)/TimePoint \d+/Channel \d+(/Data)?")


def is_imaris(handle: h5py.File, name: str) -> bool:
    """Whether a file is of Imaris, and `name`, if any, that of an image in it."""
    return isinstance(handle.get(_LEVEL_0), h5py.Group) and (
        not name or name.split("/")[0] == _ROOT
    )


def open_imaris(
    file: Path,
    handle: h5py.File,
    name: str,
    *,
    label: bool,
    axes: Axes,
    value_range: tuple[float, float] | None,
) -> SliceSource:
    """The slices of an image, without the padding.

    Args:
      file: the Imaris file.
      handle: of it, open.
      name: of a channel or its dataset; empty takes the only channel at the only time point, at
        full resolution.
      label: integers of any width.
      axes: `--axes`.
      value_range: `--value_range`.

    Raises:
      InputError: several channels or time points, or a true size that is missing or wrong.
    """
    channel, level = _choose(file, handle, name)
    dataset = channel.get("Data")
    path = file / str(channel.name).lstrip("/") / "Data"
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3:
        raise InputError(f"{path}: not there, or not of three dimensions; export it again")
    dtype = dataset.dtype
    if dtype.kind not in "uif" or (label and dtype.kind == "f"):
        raise InputError(
            f"{path}: values of type {dtype}; grey values or integer labels are needed"
        )
    info = handle.get("DataSetInfo/Image")
    recorded = {} if info is None else dict(info.attrs)
    shape = _true_shape(path, channel, recorded if level == 0 else {}, dataset.shape)
    resolved, origin = resolve_axes(path, shape, recorded=SPATIAL, given=axes)
    if resolved != SPATIAL:
        raise InputError(f"{path}: Imaris stores {SPATIAL} only; leave the flag of axes out")
    size = hdf5_size.recorded(dataset, SPATIAL)
    notes: tuple[str, ...] = ()
    if shape != dataset.shape:
        z, y, x = dataset.shape
        notes = (f"padded by Imaris to {z} x {y} x {x} (z, y, x); the padding is left out",)

    def read(z: int) -> np.ndarray:
        plane: np.ndarray = dataset[z, : shape[1], : shape[2]]
        return plane

    array = virtual_array(shape, dtype, read, lambda z: f"{path}, slice {z}")
    weakref.finalize(read, handle.close)
    return SliceSource(
        path=path,
        array=array,
        names=numbered(shape[0]),
        has_files=False,
        voxel_size=size.size,
        axes=SPATIAL,
        axes_from=origin,
        value_range=None if label else make_value_range(path, dtype, value_range),
        offset=size.offset,
        size_note=size.note,
        notes=notes,
        find_holes=lambda is_label: find_holes(file, dataset, SPATIAL, shape, label=is_label),
    )


def _choose(file: Path, handle: h5py.File, name: str) -> tuple[h5py.Group, int]:
    """A channel, and which level of resolution it is of."""
    names = [
        f"{_LEVEL_0}/{time}/{channel}"
        for time, group in handle[_LEVEL_0].items()
        for channel in group
    ]
    if not name and len(names) == 1:
        name = names[0]
    match = _INNER.fullmatch(name)
    channel = handle.get(name.removesuffix("/Data")) if match else None
    if match is None or not isinstance(channel, h5py.Group):
        what = f"no image {name!r}" if name else f"{len(names)} channels and time points"
        listed = "; ".join(names[:20]) or "none"
        example = f", such as {file}/{names[0]}" if names else ""
        raise InputError(f"{file}: {what}; give one{example} (there are: {listed})")
    return channel, int(match.group(1))


def _true_shape(
    path: Path, channel: h5py.Group, info: dict[str, Any], stored: tuple[int, ...]
) -> tuple[int, int, int]:
    sizes = [
        _text(channel.attrs.get(f"ImageSize{axis}", info.get(axis, ""))) for axis in ("Z", "Y", "X")
    ]
    if not all(size.isdecimal() for size in sizes):
        raise InputError(
            f"{path}: its true size (ImageSizeX, Y, Z) is not recorded, and Imaris pads what it"
            " stores; export it again from Imaris"
        )
    z, y, x = check_shape(path, [int(size) for size in sizes])
    if any(true > there for true, there in zip((z, y, x), stored, strict=True)):
        raise InputError(
            f"{path}: {z} x {y} x {x} (z, y, x) are recorded, but"
            f" {' x '.join(map(str, stored))} are there: truncated or damaged; export it again"
        )
    return z, y, x


def _text(value: Any) -> str:
    """An attribute: an array of single characters, or a string."""
    array = np.asarray(value)
    if array.dtype.kind == "S":
        return b"".join(array.ravel().tolist()).decode(errors="replace").strip("\0 ")
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")
