"""TIFF files checked from their headers, before any pixel is read."""

import logging
import os
import struct
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from vemseg_jax.data import tiff_size
from vemseg_jax.data.physical_size import Offset, Recorded, VoxelSize
from vemseg_jax.errors import InputError

# Whatever it warns of is checked here and raised as an error that names the file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAX_PIXELS = 2**31


class TiffHeader(NamedTuple):
    """What the headers of a TIFF file say.

    `axes` is None unless the file records what its pages are; `voxel_size` is nm, zyx, None
    where it is not recorded; `offset` and `size_note` are as in `Recorded`.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    axes: str | None
    voxel_size: VoxelSize
    offset: Offset | None = None
    size_note: str = ""

    @property
    def recorded(self) -> Recorded:
        """Voxel size and position."""
        return Recorded(self.voxel_size, self.offset, self.size_note)


def count_directories(path: Path) -> int:
    """Follows the chain of image directories to its end.

    Raises:
      InputError: not a TIFF file, or the chain leads outside the file: it is truncated.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise InputError(f"{path}: the file is empty; a TIFF image is needed")
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        magic = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 4 else 0
        if magic not in (42, 43):
            raise InputError(f"{path}: not a TIFF file; TIFF slices are needed")
        big = magic == 43
        count_type, entry, offset_type = ("Q", 20, "Q") if big else ("H", 12, "I")
        try:
            (offset,) = struct.unpack(f"{order}{offset_type}", head[8:16] if big else head[4:8])
            seen: set[int] = set()
            while offset:
                if offset in seen or offset >= size:
                    raise EOFError
                seen.add(offset)
                file.seek(offset)
                width = struct.calcsize(f"{order}{count_type}")
                (entries,) = struct.unpack(f"{order}{count_type}", file.read(width))
                file.seek(offset + width + entries * entry)
                width = struct.calcsize(f"{order}{offset_type}")
                (offset,) = struct.unpack(f"{order}{offset_type}", file.read(width))
        except (struct.error, EOFError, OverflowError, OSError):
            raise _truncated(path) from None
    if not seen:
        raise _truncated(path)
    return len(seen)


def _truncated(path: Path, what: str = "its directory of pages ends early") -> InputError:
    return InputError(f"{path}: truncated or damaged ({what}); copy or export the file again")


def read_header(path: Path, *, label: bool, ranged: bool = False) -> TiffHeader:
    """Checks every page of a TIFF file without decoding it.

    Args:
      path: one page, or a stack of them: plain, ImageJ, OME-TIFF, BigTIFF.
      label: integers of any width, palettes and inverted displays are accepted, as the stored
        values count; otherwise only 8 and 16 bit grey values.
      ranged: other grey values will do too, as they are going to be mapped.

    Raises:
      InputError: not a TIFF file, truncated, colour, pages of several shapes or types, or
        pages that are not slices.
    """
    try:
        directories = count_directories(path)
        with tifffile.TiffFile(path) as tif:
            return _check_file(path, tif, directories=directories, label=label, ranged=ranged)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    except Exception as error:
        # The reader fails in many ways on damaged tags; all mean the same to the user.
        raise _truncated(path, f"{type(error).__name__}: {error}") from error


def _check_file(
    path: Path, tif: tifffile.TiffFile, *, directories: int, label: bool, ranged: bool
) -> TiffHeader:
    _check_page(path, tif.pages[0], label=label, ranged=ranged)
    if len(tif.pages) != directories:
        raise _truncated(path, f"{len(tif.pages)} of {directories} pages can be read")
    if len(tif.series) != 1:
        shapes = ", ".join(f"{s.shape} {s.dtype}" for s in tif.series[:4])
        raise InputError(
            f"{path}: holds {len(tif.series)} images of different shape or type ({shapes}); one"
            " stack of equal slices is needed"
        )
    series = tif.series[0]
    if series.ndim not in (2, 3) or not series.axes.endswith("YX"):
        raise InputError(
            f"{path}: axes {series.axes} with shape {series.shape}; one grey channel of slices"
            " (ZYX) is needed"
        )
    depth = int(np.prod(series.shape[:-2]))
    if series.dataoffset is not None and len(tif.pages) == 1:
        if series.dataoffset + series.nbytes > tif.filehandle.size:
            raise _truncated(path, "the file is shorter than its slices")
    else:
        if len(series) != depth:
            raise _truncated(path, f"{len(series)} pages for {depth} slices")
        for page in series.pages:
            _check_data(path, page)
    _check_promised(path, tif, depth)
    axis = series.axes[0] if series.ndim == 3 else "Z"
    h, w = (int(n) for n in series.shape[-2:])
    recorded = tiff_size.recorded(tif)
    return TiffHeader(
        shape=(depth, h, w),
        dtype=np.dtype(series.dtype).newbyteorder("="),
        axes=f"{axis}YX".lower() if axis not in "IQ" and series.ndim == 3 else None,
        voxel_size=recorded.size,
        offset=recorded.offset,
        size_note=recorded.note,
    )


def _check_promised(path: Path, tif: tifffile.TiffFile, depth: int) -> None:
    """Metadata that promises more slices than could be read: the file was cut short."""
    promised = depth
    if tif.is_imagej and tif.imagej_metadata:
        promised = int(tif.imagej_metadata.get("images", depth))
    elif tif.is_shaped and tif.shaped_metadata:
        shape = tif.shaped_metadata[0].get("shape", ())
        promised = int(np.prod(shape[:-2])) if len(shape) > 2 else depth
    if promised > depth:
        raise _truncated(path, f"{depth} of {promised} slices are there")


def _check_page(path: Path, page: Any, *, label: bool, ranged: bool) -> None:
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if page.samplesperpixel != 1 or photometric not in ("MINISBLACK", "MINISWHITE", "PALETTE"):
        raise InputError(
            f"{path}: a colour image ({photometric}, {page.samplesperpixel} samples per pixel);"
            " grey images are needed, convert it to 8 or 16 bit grey"
        )
    orientation = page.tags.get("Orientation")
    if orientation is not None and int(orientation.value) > 1:
        raise InputError(
            f"{path}: orientation tag {int(orientation.value)} (flipped or turned for display);"
            " save it upright, with orientation 1"
        )
    if page.ndim != 2 or not 0 < page.size < MAX_PIXELS:
        raise InputError(f"{path}: page of shape {page.shape}; a 2-D slice [h, w] is needed")
    if label:
        if page.dtype is None or page.dtype.kind not in "uib":
            raise InputError(f"{path}: label of type {page.dtype}; an integer type is needed")
        return
    if photometric != "MINISBLACK" and not _is_grey_ramp(page):
        raise InputError(
            f"{path}: {photometric} image, whose stored values are not brightness; save it as 8"
            " or 16 bit grey with black as 0"
        )
    dtype, bits = page.dtype, page.bitspersample
    if dtype is None or bits % 8 or not (ranged or (dtype.kind == "u" and bits in (8, 16))):
        raise InputError(
            f"{path}: grey values of type {dtype}, {bits} bit; 8 or 16 bit unsigned is needed, or"
            " --value_range=LOW,HIGH to say which values become black and white"
        )


def _is_grey_ramp(page: Any) -> bool:
    if page.photometric.name != "PALETTE" or page.colormap is None:
        return False
    r, g, b = np.asarray(page.colormap, np.int64)
    return bool((r == g).all() and (g == b).all() and (np.diff(r) > 0).all())


def _check_data(path: Path, page: Any) -> None:
    if page is None:
        raise _truncated(path, "a page that the metadata lists is missing")
    size = page.parent.filehandle.size
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset <= 0 or count <= 0 or offset + count > size:
            raise _truncated(path, f"page {page.index} lies beyond the end of the file")
    first = page.keyframe
    if first.compression == 1 and sum(page.databytecounts) * 8 < first.size * first.bitspersample:
        raise _truncated(path, f"page {page.index} has too few bytes")


class TiffReader:
    """Reads slices of one TIFF stack, open while this lives; safe to call from threads."""

    def __init__(self, path: Path):
        self._tif = tifffile.TiffFile(path)
        weakref.finalize(self, self._tif.close)
        self._tif.filehandle.set_lock(True)
        self._series = self._tif.series[0]
        self._contiguous = self._series.dataoffset is not None and len(self._tif.pages) == 1
        self._offset = self._series.dataoffset or 0
        # Later pages are loaded on first use, which is not safe from several threads.
        self._pages: list[Any] | None = None if self._contiguous else list(self._series.pages)

    def __call__(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`."""
        if self._pages is not None:
            return self._pages[z].asarray(maxworkers=1)
        h, w = self._series.shape[-2:]
        dtype = np.dtype(self._series.dtype)
        handle = self._tif.filehandle
        with handle.lock:
            handle.seek(self._offset + z * h * w * dtype.itemsize)
            data = handle.read(h * w * dtype.itemsize)
        return np.frombuffer(data, dtype.newbyteorder(self._tif.byteorder)).reshape(h, w)


def read_single(path: Path) -> np.ndarray:
    """The first page of a TIFF file, `[h, w]`."""
    with tifffile.TiffFile(path) as tif:
        return tif.pages[0].asarray(maxworkers=1)
