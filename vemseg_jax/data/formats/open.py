"""Every format a stack of slices may come in, told apart by content first, then by name."""

import os
from pathlib import Path

from vemseg_jax.data.formats.axes import Axes, given_axes
from vemseg_jax.data.formats.chunked.array import open_chunked
from vemseg_jax.data.formats.file_names import find_path
from vemseg_jax.data.formats.hdf5.dataset import open_hdf5, split_path
from vemseg_jax.data.formats.mrc.stack import is_mrc, open_mrc
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.data.formats.stores import Store, find_archive, location
from vemseg_jax.data.formats.tiff.header import MAGIC, failing
from vemseg_jax.data.formats.tiff.stack import Range, open_folder, open_stack
from vemseg_jax.data.formats.unknown import explain, is_foreign
from vemseg_jax.errors import InputError

_KINDS = (
    "a folder of TIFF or PNG slices, a TIFF stack, an OME-Zarr, Zarr, N5 or precomputed volume, or"
    " an HDF5 or MRC file"
)
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".ims", ".ilp", ".nwb")
# Files in which tensorstore finds nothing: they are read whole, or by their own library.
_LOCAL_SUFFIXES = (".tif", ".tiff", ".mrc", ".rec", *_HDF5_SUFFIXES)
_MARKS = ("zarr.json", ".zgroup", ".zattrs", "attributes.json")


def open_source(
    path: str | Path,
    *,
    label: bool = False,
    axes: Axes = None,
    value_range: Range = None,
    mrc_bytes: str | None = None,
) -> SliceSource:
    """Opens a source of slices; every header is checked, and pixels only where it leaves doubt.

    Args:
      path: folder of TIFF or PNG slices, TIFF stack, OME-Zarr 0.4 or 0.5 (level 0, one channel),
        array of Zarr 2 or 3, N5 dataset, neuroglancer precomputed volume, HDF5 file with the
        dataset behind it (`stack.h5/volumes/raw`), MRC file; of the chunked formats also an address
        of `gs://`, `s3://` or `http(s)://`.
      label: values are labels, of any integer type; otherwise grey values of 8 or 16 bit.
      axes: which dimension is which, in the order in which the format lists them, where it does
        not record them; "zyx" also to take the pages of a TIFF stack as slices. A string, or
        `GivenAxes` with more about the flag.
      value_range: what becomes black and white of grey values of other types.
      mrc_bytes: what bytes of MRC files mean, see `decide_bytes`.

    Raises:
      InputError: it cannot be used, with the file and the reason.
    """
    where = location(path)
    if isinstance(where, str):
        return _open_remote(where, label=label, axes=axes, value_range=value_range)
    where = find_path(where)
    inner = split_path(where)
    if inner is not None:
        return open_hdf5(*inner, label=label, axes=axes, value_range=value_range)
    archive = find_archive(where)
    if archive is not None:
        return _open_archive(archive, where, label=label, axes=axes, value_range=value_range)
    if not where.exists():
        raise InputError(_missing(where))
    if not os.access(where, os.R_OK):
        raise InputError(f"{where}: no permission to read it")
    if where.is_dir():
        return _open_directory(where, label=label, axes=axes, value_range=value_range)
    return _open_file(where, label=label, axes=axes, value_range=value_range, mrc_bytes=mrc_bytes)


def _open_archive(
    archive: Path, path: Path, *, label: bool, axes: Axes, value_range: Range
) -> SliceSource:
    """A chunked volume in a zip file; the name of a single folder in it may be left out."""
    store = Store(path, archive)
    source = open_chunked(store, label=label, axes=axes, value_range=value_range)
    names = store.names()
    if source is None and path == archive and len(names) == 1:
        inner = Store(path / names[0], archive)
        source = open_chunked(inner, label=label, axes=axes, value_range=value_range)
    if source is None:
        there = ", ".join((names or Store(archive, archive).names())[:5]) or "nothing"
        raise InputError(
            f"{path}: a zip file without a Zarr, N5 or precomputed volume (it holds {there}); unzip"
            " it and give what is in it, or the path of a volume in it"
        )
    return source


def _open_directory(path: Path, *, label: bool, axes: Axes, value_range: Range) -> SliceSource:
    source = open_chunked(Store(path), label=label, axes=axes, value_range=value_range)
    if source is not None:
        return source
    text, flag, _, only_missing = given_axes(axes)
    if text not in (None, "zyx") and not only_missing:
        raise InputError(f"--{flag}={text}: only zyx can be read from a folder of slices")
    return open_folder(path, label=label, value_range=value_range)


def _open_file(
    path: Path, *, label: bool, axes: Axes, value_range: Range, mrc_bytes: str | None
) -> SliceSource:
    with failing(path), open(path, "rb") as file:
        magic = file.read(4)
    if is_foreign(path):
        raise InputError(f"{path}: {explain(path)}")
    if magic not in MAGIC:
        if path.suffix.lower() in _HDF5_SUFFIXES:
            raise InputError(f"{path}: not an HDF5 file, or a damaged one; copy or export it again")
        if is_mrc(path):
            return open_mrc(
                path, label=label, axes=axes, value_range=value_range, mrc_bytes=mrc_bytes
            )
    return open_stack(path, label=label, axes=axes, value_range=value_range)


def _open_remote(url: str, *, label: bool, axes: Axes, value_range: Range) -> SliceSource:
    if url.lower().endswith(_LOCAL_SUFFIXES):
        raise InputError(
            f"{url}: single files cannot be read from afar; copy it to this machine first"
        )
    source = open_chunked(Store(url), label=label, axes=axes, value_range=value_range)
    if source is None:
        raise InputError(
            f"{url}: no OME-Zarr, Zarr, N5 or precomputed volume there; check the address, which"
            " must be that of the directory with zarr.json, .zattrs, info or attributes.json"
        )
    return source


def _missing(path: Path) -> str:
    parent = path.parent
    if any((parent / mark).exists() for mark in _MARKS):
        names = sorted(p.name for p in parent.iterdir() if p.is_dir() and p.name[0] != ".")
        return f"{path}: no such array; {parent} holds: {', '.join(names) or 'none'}"
    return f"{path}: no such file or folder; give {_KINDS}"
