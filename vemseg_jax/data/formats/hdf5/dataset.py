"""Datasets of HDF5 files, by their path behind that of the file: `stack.h5/volumes/raw`."""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vemseg_jax.data.formats.axes import SPATIAL, Axes, check_shape, resolve_axes
from vemseg_jax.data.formats.hdf5 import size as hdf5_size
from vemseg_jax.data.formats.hdf5.failures import open_file, why
from vemseg_jax.data.formats.hdf5.imaris import is_imaris, open_imaris
from vemseg_jax.data.formats.hdf5.parts import find_holes, open_dataset
from vemseg_jax.data.formats.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.formats.value_range import make_value_range
from vemseg_jax.errors import InputError

with suppress(ImportError):
    # Where it is installed, its codecs are known to h5py from here on.
    import hdf5plugin  # type: ignore[import-not-found] # noqa: F401

# Decoded chunks that are kept: thick ones would be decoded once per slice.
_CACHE_BYTES = 2**28
_MAGIC = b"\x89HDF\r\n\x1a\n"


def split_path(path: Path) -> tuple[Path, str] | None:
    """The HDF5 file of a path and the dataset behind it; None where there is no such file."""
    for file in (path, *path.parents):
        if file.is_file() and os.access(file, os.R_OK):
            with open(file, "rb") as stream:
                is_hdf5 = stream.read(len(_MAGIC)) == _MAGIC
            return (file, str(path.relative_to(file)) if path != file else "") if is_hdf5 else None
        if file.exists():
            return None
    return None


def open_hdf5(
    file: Path,
    name: str,
    *,
    label: bool,
    axes: Axes,
    value_range: tuple[float, float] | None,
) -> SliceSource:
    """The slices of a dataset.

    Args:
      file: the HDF5 file.
      name: of the dataset; empty takes the only one of three dimensions or more.
      label: integers of any width.
      axes: `--axes`.
      value_range: `--value_range`.

    Raises:
      InputError: file or dataset that is missing, damaged or in use, or several datasets; lists
        them.
    """
    try:
        handle = open_file(file, rdcc_nbytes=_CACHE_BYTES)
        if is_imaris(handle, name):
            return open_imaris(file, handle, name, label=label, axes=axes, value_range=value_range)
        dataset = open_dataset(file, handle, _choose(file, handle, name).name)
        return _open(file, dataset, label=label, axes=axes, value_range=value_range)
    except InputError:
        raise
    except Exception as error:
        # Damage shows in many ways, some of them RuntimeError or KeyError.
        raise InputError(f"{file}: {why(error)}") from error


def _choose(file: Path, handle: h5py.File, name: str) -> h5py.Dataset:
    datasets: dict[str, h5py.Dataset] = {}

    def visit(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 3:
            datasets[key] = item

    handle.visititems(visit)
    known = "; ".join(f"{k} {d.shape} {d.dtype}" for k, d in list(datasets.items())[:20])
    known = known or "none of three dimensions"
    if name:
        found = handle.get(name)
        if found is None:
            _check_links(file, handle, name)
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{file}: no dataset {name!r}; there are: {known}")
        return found
    if len(datasets) != 1:
        raise InputError(
            f"{file}: {len(datasets)} datasets to choose from; give one, such as"
            f" {file}/{next(iter(datasets), 'NAME')} (there are: {known})"
        )
    return next(iter(datasets.values()))


def _check_links(file: Path, handle: h5py.File, name: str) -> None:
    """Raises InputError where a part of the path is a link to a file that is not there."""
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        link = handle.get("/".join(parts[:end]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{file}/{'/'.join(parts[:end])}: is a link to {link.path} in {link.filename},"
                " which cannot be opened; put that file back, or give it itself"
            )


def _open(
    file: Path,
    dataset: h5py.Dataset,
    *,
    label: bool,
    axes: Axes,
    value_range: tuple[float, float] | None,
) -> SliceSource:
    path = file / str(dataset.name).lstrip("/")
    dtype = dataset.dtype
    if dtype.kind not in "uibf":
        raise InputError(f"{path}: values of type {dtype}; numbers are needed")
    if label and dtype.kind == "f":
        raise InputError(f"{path}: label of type {dtype}; an integer type is needed")
    _check_filters(path, dataset)
    recorded = hdf5_size.recorded_axes(dataset)
    resolved, origin = resolve_axes(path, dataset.shape, recorded=recorded, given=axes)
    reader = _Reader(path, dataset, resolved)
    size = hdf5_size.recorded(dataset, resolved)
    return SliceSource(
        path=path,
        array=virtual_array(reader.shape, dtype, reader, lambda z: f"{path}, slice {z}"),
        names=numbered(reader.shape[0]),
        has_files=False,
        voxel_size=size.size,
        axes=recorded,
        axes_from=origin,
        value_range=None if label else make_value_range(path, dtype, value_range),
        offset=size.offset,
        bare_size=size.bare,
        size_note=size.note,
        find_holes=lambda is_label: find_holes(
            file, dataset, resolved, reader.shape, label=is_label
        ),
    )


def _check_filters(path: Path, dataset: h5py.Dataset) -> None:
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            label = name.decode(errors="replace") or "unnamed"
            raise InputError(
                f"{path}: compressed with {label} (HDF5 filter {code}), which needs the package"
                " hdf5plugin; pip install hdf5plugin"
            )


class _Reader:
    """Slices of a dataset of any order of axes; h5py itself keeps threads apart."""

    def __init__(self, path: Path, dataset: h5py.Dataset, axes: str):
        lengths = dict(zip(axes, dataset.shape, strict=False))
        extra = [a for a, n in lengths.items() if a not in SPATIAL and n != 1]
        if len(axes) != dataset.ndim or not set(SPATIAL) <= set(axes) or extra:
            raise InputError(
                f"{path}: axes {axes} of shape {dataset.shape}; z, y and x are needed, others only"
                " with length 1"
            )
        self.shape = check_shape(path, [lengths[a] for a in SPATIAL])
        self._dataset, self._axes = dataset, axes
        weakref.finalize(self, dataset.file.close)

    def __call__(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`."""
        index: list[Any] = [
            z if a == "z" else slice(None) if a in SPATIAL else 0 for a in self._axes
        ]
        plane = self._dataset[tuple(index)]
        return plane if self._axes.index("y") < self._axes.index("x") else plane.T
