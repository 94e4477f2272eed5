"""MRC files (CCP4, IMOD): header and voxels as mrcfile reads them."""

import warnings
from pathlib import Path

import mrcfile
import numpy as np

from vemseg_jax.data import mrc_size
from vemseg_jax.data.axes import Axes, arrange, resolve_axes
from vemseg_jax.data.chunked_size import OTHERWISE
from vemseg_jax.data.physical_size import Recorded
from vemseg_jax.data.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.value_range import make_value_range
from vemseg_jax.errors import InputError

SUFFIXES = (".mrc", ".rec", ".st", ".map", ".ali")
_MAP = slice(208, 212)
# In the second stretch of extra bytes.
_IMOD = slice(40, 48)
_IMOD_STAMP = 1146047817


def is_mrc(path: Path) -> bool:
    """Whether a file is MRC by the mark in its header, or by its name."""
    with open(path, "rb") as file:
        head = file.read(_MAP.stop)
    return head[_MAP][:3] == b"MAP" or path.suffix.lower() in SUFFIXES


def open_mrc(
    path: Path, *, label: bool, axes: Axes, value_range: tuple[float, float] | None
) -> SliceSource:
    """The sections of an MRC file as slices; the voxels stay on disk until they are read.

    Raises:
      InputError: it cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mrc = mrcfile.mmap(path, mode="r")
    except Exception as error:
        # A header can be wrong in many ways; mrcfile raises or warns.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: truncated or damaged, not a readable MRC file ({reason}); copy or export it"
            " again"
        ) from error
    data, header = mrc.data, mrc.header
    if data is None or data.ndim not in (2, 3) or data.size == 0:
        shape = None if data is None else data.shape
        raise InputError(f"{path}: data of shape {shape}; one volume of sections is needed")
    if header.mode == 0 and _is_imod_unsigned(header):
        data = data.view(np.uint8)
    if data.ndim == 2:
        data = data[None]
    dtype = data.dtype.newbyteorder("=")
    if dtype.kind not in "iuf" or (label and dtype.kind == "f"):
        raise InputError(
            f"{path}: values of type {dtype}; grey values or integer labels are needed"
        )
    recorded = _axes(path, header)
    resolved, origin = resolve_axes(path, data.shape, recorded=recorded, given=axes)
    stored = virtual_array(
        tuple(data.shape), dtype, lambda n: data[n], lambda n: f"{path}, section {n}"
    )
    view = arrange(path, stored, resolved)
    size = mrc_size.recorded(header)
    if resolved != recorded and len(set(size.size)) > 1:
        size = Recorded(note=OTHERWISE)
    return SliceSource(
        path=path,
        array=view,
        names=numbered(int(view.shape[0])),
        has_files=False,
        voxel_size=size.size,
        axes=recorded,
        axes_from=origin,
        value_range=None if label else make_value_range(path, dtype, value_range),
        offset=size.offset,
        offset_is_certain=False,
        size_note=size.note,
    )


def _axes(path: Path, header: np.recarray) -> str:
    """Sections, rows, columns as letters."""
    numbers = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if numbers == [0, 0, 0]:
        # Left empty by some writers, which mean the usual order.
        return "zyx"
    if sorted(numbers) != [1, 2, 3]:
        raise InputError(
            f"{path}: mapc, mapr, maps are {numbers[::-1]}; they must be 1, 2 and 3 in some order"
        )
    return "".join("xyz"[number - 1] for number in numbers)


def _is_imod_unsigned(header: np.recarray) -> bool:
    """IMOD marks its files, and whether their bytes are signed."""
    order = "<" if header["machst"][0] != 0x11 else ">"
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[_IMOD], f"{order}i4")
    return int(stamp) == _IMOD_STAMP and not int(flags) & 1
