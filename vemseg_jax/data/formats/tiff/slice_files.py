"""Headers and pixels of files that hold slices, TIFF or PNG, told apart by their first bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vemseg_jax.data.formats import png
from vemseg_jax.data.formats.tiff import header as tiff
from vemseg_jax.data.formats.tiff.reader import Place, TiffReader

TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)


def is_png(path: Path) -> bool:
    """Whether a file is PNG, by its content or, where that is neither, by its name."""
    with open(path, "rb") as file:
        head = file.read(len(png.SIGNATURE))
    is_tiff = head[:4] in tiff.MAGIC
    return head == png.SIGNATURE or (path.suffix.lower() in PNG_SUFFIXES and not is_tiff)


def read_header(
    path: Path,
    *,
    label: bool,
    ranged: bool = False,
    alone: bool = False,
    confirmed: bool = False,
) -> tiff.TiffHeader:
    """As `header.read_header`, of a PNG file too.

    Raises:
      InputError: the file cannot be used.
    """
    with tiff.failing(path):
        if not is_png(path):
            return tiff.read_header(
                path, label=label, ranged=ranged, alone=alone, confirmed=confirmed
            )
        header = png.read_header(path, label=label)
    return tiff.TiffHeader(
        shape=(1, *header.shape),
        dtype=header.dtype,
        axes=None,
        voxel_size=(None, None, None),
        places=(Place(path, 0),),
        inverted=tiff.Inverted(0, 0),
        notes=(),
        xml=None,
    )


class SliceReader:
    """Reads slices from whatever files they are in; safe to call from several threads."""

    def __init__(self, places: Sequence[Place], *, label: bool):
        self._places, self._tiff = tuple(places), TiffReader(places, label=label)
        self._png = {file: is_png(file) for file in {place.file for place in places}}

    def __call__(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`."""
        file = self._places[z].file
        return png.read(file) if self._png[file] else self._tiff(z)
