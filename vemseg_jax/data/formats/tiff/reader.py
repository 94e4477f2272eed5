"""Pixels of TIFF pages as a viewer shows them, read by several threads from many files."""

import functools
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from vemseg_jax.errors import InputError

# A set may have more files than a process may open.
OPEN_FILES = 16
_OPAQUE = (1, 2)


class Place(NamedTuple):
    """Where a slice is stored.

    Attributes:
      file: the TIFF file.
      page: number of its page.
      offset: of the first byte, where the slices follow each other behind a single page; else
        None.
    """

    file: Path
    page: int
    offset: int | None = None


class _OpenFile:
    """A TIFF file of which every page has been parsed by itself; closed when nobody uses it."""

    def __init__(self, path: Path):
        self.tif = tifffile.TiffFile(path)
        weakref.finalize(self, self.tif.close)
        self.tif.filehandle.set_lock(True)
        # Each page by its own tags: those of the first would decode another compression wrongly.
        # All of them now, as loading them later is not safe from several threads.
        self.pages = list(self.tif.pages)


class TiffReader:
    """Reads slices wherever they are stored; safe to call from several threads."""

    def __init__(self, places: Sequence[Place], *, label: bool):
        self._places, self._label = tuple(places), label
        self._lock = threading.Lock()
        self._open = functools.lru_cache(maxsize=OPEN_FILES)(_OpenFile)

    def __call__(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`, as `shown` returns it.

        Raises:
          InputError: values that mean nothing in an inverted or transparent image.
        """
        place = self._places[z]
        with self._lock:
            file = self._open(place.file)
        page = file.pages[place.page]
        if place.offset is None:
            plane = page.asarray(maxworkers=1)
        else:
            plane = _raw(file.tif, page, place.offset)
        where = str(place.file) if len(file.pages) == 1 else f"{place.file}, page {place.page}"
        return shown(plane, page, label=self._label, where=where)


def _raw(tif: tifffile.TiffFile, page: Any, offset: int) -> np.ndarray:
    h, w, dtype = page.imagelength, page.imagewidth, np.dtype(page.dtype)
    handle, size = tif.filehandle, h * w * dtype.itemsize
    with handle.lock:
        handle.seek(offset)
        data = handle.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return np.frombuffer(data, dtype.newbyteorder(tif.byteorder)).reshape(h, w)


def has_alpha(page: Any) -> bool:
    """Whether a grey page has a second sample that says how opaque it is."""
    return page.samplesperpixel == 2 and any(int(s) in _OPAQUE for s in page.extrasamples)


def keeps_inverted(page: Any) -> bool:
    """Whether an inverted label is of ImageJ, whose inverting lookup table leaves its values be.

    Its masks have 255 where the structure is, shown black on white.
    """
    return bool(page.parent.is_imagej)


def shown(plane: np.ndarray, page: Any, *, label: bool, where: str) -> np.ndarray:
    """Grey values as every viewer shows them.

    Where white is stored as 0 (photometric MinIsWhite) they are inverted; labels of ImageJ keep
    theirs. A second sample that is opaque throughout is left out.

    Args:
      plane: `[h, w]`, or with alpha `[h, w, 2]` or `[2, h, w]`, as stored.
      page: that it is of.
      label: it holds labels, not grey values.
      where: names the slice, for messages.

    Raises:
      InputError: an inverted label whose values are neither 0 nor the largest, or a page that is
        partly transparent.
    """
    if plane.ndim == 3 and has_alpha(page):
        axis = 2 if plane.shape[2] == 2 else 0
        alpha = plane.take(1, axis)
        if alpha.min() != alpha.max():
            raise InputError(
                f"{where}: partly transparent (its alpha channel goes from {alpha.min()} to"
                f" {alpha.max()}); flatten it and save it without alpha"
            )
        plane = plane.take(0, axis)
    if getattr(page.photometric, "name", "") != "MINISWHITE":
        return plane
    if label and keeps_inverted(page):
        return plane
    if plane.dtype == np.bool_:
        return ~plane
    largest = 2**page.bitspersample - 1
    if label and not ((plane == 0) | (plane == largest)).all():
        raise InputError(
            f"{where}: an inverted label (photometric MinIsWhite: 0 is shown white) with values"
            f" other than 0 and {largest}; save it with black as 0 (MinIsBlack)"
        )
    return np.subtract(largest, plane, dtype=plane.dtype)
