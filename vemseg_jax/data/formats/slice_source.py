"""A stack of slices that is read lazily, whatever file it comes from."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorstore as ts

from vemseg_jax.data.formats.holes import Holes, missing_chunk
from vemseg_jax.data.formats.physical_size import Offset, VoxelSize
from vemseg_jax.data.formats.value_range import ValueRange
from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError


@dataclass(frozen=True)
class SliceSource:
    """Slices `[z, h, w]` that are read one at a time.

    Attributes:
      path: file or folder; the URL, a string, of a remote one.
      array: the values as stored, `[z, y, x]`; nothing is read before it is asked for.
      names: file name of every slice, or its z where the source is one file.
      has_files: whether the names are file names.
      voxel_size: nm, zyx, each None where the source does not record it.
      axes: as the source records them, such as "zyx"; None where it does not.
      axes_from: how it is known which axis is which, for people; None where the record says
        otherwise and nobody has confirmed it.
      ignored: entries of the folder that are not read.
      value_range: maps grey values that are neither 8 nor 16 bit unsigned; None keeps values.
      notes: what a person should know of how the source is read, a sentence each.
      offset: of the first voxel, in voxels, zyx; nan where the record cannot be used; None where
        the source records no position.
      offset_is_certain: whether all programs that write the format mean the same by it.
      bare_size: the numbers of a voxel size without a unit of length, zyx; None without.
      size_note: what of the recorded size or position cannot be used, for people.
      find_holes: looks for parts that are not stored, given whether the values are labels;
        returns None where all is there, and an array that fails at them where they cannot be
        listed; None where the format has no such parts.
      rows_up: the format counts rows from the bottom, so that programs differ in how they show it.
    """

    path: Path | str
    array: ts.TensorStore
    names: tuple[str, ...]
    has_files: bool
    voxel_size: VoxelSize
    axes: str | None
    axes_from: str | None
    ignored: int = 0
    value_range: ValueRange | None = None
    notes: tuple[str, ...] = ()
    offset: Offset | None = None
    offset_is_certain: bool = True
    bare_size: Offset | None = None
    size_note: str = ""
    find_holes: Callable[[bool], Holes | ts.TensorStore | None] | None = None
    rows_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shape(self) -> tuple[int, int, int]:
        """zyx."""
        z, y, x = (int(n) for n in self.array.shape)
        return z, y, x

    @property
    def stored_dtype(self) -> np.dtype:
        """Of the values as stored."""
        return np.dtype(self.array.dtype.numpy_dtype)

    @property
    def dtype(self) -> np.dtype:
        """Of what `read` returns."""
        return self.value_range.dtype if self.value_range else self.stored_dtype

    def file(self, z: int) -> Path | str:
        """The file of a slice, for messages and provenance."""
        return Path(self.path) / self.names[z] if self.has_files else self.path

    def where(self, z: int) -> str:
        """A slice, for messages."""
        return str(self.file(z)) if self.has_files else f"{self.path}, slice {z}"

    def read(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`, `dtype`. Safe to call from several threads.

        Raises:
          InputError: it cannot be decoded, or is not what the headers said.
        """
        try:
            plane = np.asarray(self.array[z].read().result())
        except InputError:
            raise
        except (ValueError, OSError) as error:
            text = missing_chunk(error) or reason(error)
            raise InputError(f"{self.where(z)}: {text}") from error
        if self.value_range is None:
            return plane
        return self.value_range(plane, self.where(z))


def virtual_array(
    shape: tuple[int, int, int],
    dtype: np.dtype,
    reader: Callable[[int], np.ndarray],
    where: Callable[[int], str],
) -> ts.TensorStore:
    """Slices of a format that tensorstore has no driver for, as one of its arrays `[z, y, x]`.

    Args:
      shape: zyx.
      dtype: that the headers announce.
      reader: z to slice `[h, w]`; called from several threads.
      where: z to the slice's name, for messages.
    """
    dtype = np.dtype(dtype).newbyteorder("=")

    def read(domain: ts.IndexDomain, array: np.ndarray, _: object) -> None:
        zs, rows, columns = (
            range(dim.inclusive_min, dim.exclusive_max) for dim in (domain[i] for i in range(3))
        )
        for index, z in enumerate(zs):
            try:
                plane = np.asarray(reader(z))
            except InputError:
                raise
            except Exception as error:
                # Every codec has exceptions of its own, which tensorstore would not let through.
                raise InputError(f"{where(z)}: {reason(error)}") from error
            if plane.shape != shape[1:] or plane.dtype.newbyteorder("=") != dtype:
                raise InputError(
                    f"{where(z)}: {plane.dtype} {plane.shape} read, {dtype} {shape[1:]} announced"
                    " by its header; export it again"
                )
            array[index] = plane[rows.start : rows.stop, columns.start : columns.stop]

    return ts.virtual_chunked(
        read,
        rank=3,
        shape=shape,
        dtype=ts.dtype(dtype),
        chunk_layout=ts.ChunkLayout(read_chunk_shape=(1, *shape[1:])),
    )


def numbered(count: int) -> tuple[str, ...]:
    """Names of slices without files."""
    return tuple(str(z) for z in range(count))
