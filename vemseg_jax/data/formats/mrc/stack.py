"""MRC files (CCP4, IMOD, SerialEM): voxels of one volume, packed by gzip or bzip2 or not."""

import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from vemseg_jax.data.formats.axes import Axes, arrange, resolve_axes
from vemseg_jax.data.formats.chunked.size import OTHERWISE
from vemseg_jax.data.formats.mrc import size as mrc_size
from vemseg_jax.data.formats.mrc.bytes import SIGNED, decide_bytes, read_bytes
from vemseg_jax.data.formats.mrc.header import BYTES, NIBBLES, SIZE, MrcHeader, check_length, parse
from vemseg_jax.data.formats.physical_size import Recorded
from vemseg_jax.data.formats.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.formats.value_range import make_value_range
from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError
from vemseg_jax.memory import host_memory

SUFFIXES = (".mrc", ".mrcs", ".rec", ".st", ".map", ".ali", ".preali", ".bl")
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_MAP = slice(208, 212)
_MEMORY_SHARE = 0.5
# Read behind the data of a packed file, to see whether there is more.
_BEHIND = 2**20


def is_mrc(path: Path) -> bool:
    """Whether a file is MRC by the mark in its header, or by its name."""
    try:
        with _stream(path) as file:
            head = file.read(_MAP.stop)
    except (OSError, EOFError, ValueError):
        head = b""
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    return head[_MAP][:3] == b"MAP" or name.endswith(SUFFIXES)


def open_mrc(
    path: Path,
    *,
    label: bool,
    axes: Axes,
    value_range: tuple[float, float] | None,
    mrc_bytes: str | None = None,
) -> SliceSource:
    """The sections of an MRC file as slices; the voxels stay on disk until they are read.

    A packed file is unpacked in memory.

    Args:
      path: the file.
      label: integers of any width.
      axes: `--axes`.
      value_range: `--value_range`.
      mrc_bytes: `--mrc_bytes`, see `decide_bytes`.

    Raises:
      InputError: it cannot be used.
    """
    header, data, notes = _load(path)
    kind = SIGNED
    if header.mode == BYTES:
        kind, why = decide_bytes(path, header, data, label=label, given=mrc_bytes)
        notes += why

    def read(n: int) -> np.ndarray:
        plane = np.asarray(data[n])
        if header.mode == BYTES:
            return read_bytes(plane, kind)
        return _unpack(plane, header.shape[2]) if header.mode == NIBBLES else plane

    dtype = np.dtype(np.int8) if header.mode == BYTES and kind == SIGNED else header.dtype
    dtype = dtype.newbyteorder("=")
    if label and dtype.kind == "f":
        raise InputError(f"{path}: label of type {dtype}; an integer type is needed")
    recorded = _axes(path, header.fields)
    resolved, origin = resolve_axes(path, header.shape, recorded=recorded, given=axes)
    stored = virtual_array(header.shape, dtype, read, lambda n: f"{path}, section {n}")
    view = arrange(path, stored, resolved)
    size = mrc_size.recorded(header.fields)
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
        notes=header.notes + notes,
        rows_up=True,
    )


def _load(path: Path) -> tuple[MrcHeader, np.ndarray, tuple[str, ...]]:
    """Header, `[sections, rows, items]` as stored, and notes on the length of the file."""
    try:
        with _stream(path) as file:
            header = parse(path, file.read(SIZE))
            count = header.shape[0] * header.section_bytes
            if isinstance(file, gzip.GzipFile | bz2.BZ2File):
                notes, data = _unpacked(path, file, header, count)
            else:
                notes = check_length(path, header, os.path.getsize(path))
                data = np.memmap(path, np.uint8, "r", header.offset, (count,))
    except InputError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: {reason(error)}") from error
    shape = (*header.shape[:2], header.row_items)
    return header, data.view(header.dtype).reshape(shape), notes


def _stream(path: Path) -> Any:
    with open(path, "rb") as file:
        magic = file.read(3)
    opener = next((o for mark, o in _PACKED.items() if magic.startswith(mark)), open)
    return opener(path, "rb")


def _unpacked(
    path: Path, file: Any, header: MrcHeader, count: int
) -> tuple[tuple[str, ...], np.ndarray]:
    if count > _MEMORY_SHARE * host_memory():
        raise InputError(
            f"{path}: {count / 1e9:.1f} GB when unpacked, more than the memory has room for; unpack"
            " it first (gunzip or bunzip2)"
        )
    rest = file.read(header.offset - SIZE + count + _BEHIND)
    notes = check_length(path, header, SIZE + len(rest))
    return notes, np.frombuffer(rest, np.uint8, count, header.offset - SIZE)


def _unpack(plane: np.ndarray, columns: int) -> np.ndarray:
    """Two values of 4 bit a byte, the first in its lower half; rows begin with a new byte."""
    both = np.stack([plane & 0x0F, plane >> 4], axis=-1)
    return both.reshape(len(plane), -1)[:, :columns]


def _axes(path: Path, fields: np.void) -> str:
    """Sections, rows, columns as letters."""
    numbers = [int(fields[name]) for name in ("maps", "mapr", "mapc")]
    if numbers == [0, 0, 0]:
        # Left empty by some writers, which mean the usual order.
        return "zyx"
    if sorted(numbers) != [1, 2, 3]:
        raise InputError(
            f"{path}: mapc, mapr, maps are {numbers[::-1]}; they must be 1, 2 and 3 in some order"
        )
    return "".join("xyz"[number - 1] for number in numbers)
