"""PNG files: one slice each, grey or labels, values as they are stored."""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from vemseg_jax.data.formats.axes import MAX_PIXELS
from vemseg_jax.data.formats.unknown import explain
from vemseg_jax.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
# Grey values of 2 and 4 bit are spread over 0 to 255 when they are decoded.
_SPREAD = {2: 85, 4: 17}


class PngHeader(NamedTuple):
    """What the header of a PNG file says: (h, w), bits of a value, and the type of colour."""

    shape: tuple[int, int]
    bits: int
    colour: int

    @property
    def dtype(self) -> np.dtype:
        """Of the values that `read` returns."""
        if self.bits == 1 and self.colour == _GREY:
            return np.dtype(np.bool_)
        return np.dtype(np.uint16 if self.bits == 16 else np.uint8)


def read_header(path: Path, *, label: bool) -> PngHeader:
    """Checks a PNG file without decoding it.

    Args:
      path: the file.
      label: 1, 2, 4, 8 or 16 bit, or indices of a palette; otherwise grey values of 8 or 16 bit.

    Raises:
      InputError: not PNG, cut short, or a colour image.
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(29)
        if head[:8] != SIGNATURE:
            raise InputError(f"{path}: {explain(path)}")
        if len(head) < 29 or head[12:16] != b"IHDR":
            raise _truncated(path)
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        file.seek(8)
        while True:
            chunk = file.read(8)
            if len(chunk) < 8:
                raise _truncated(path)
            length, kind = struct.unpack(">I4s", chunk)
            if kind == b"IEND":
                break
            file.seek(length + 4, 1)
    if not 0 < width * height < MAX_PIXELS:
        raise InputError(f"{path}: {height} x {width} pixels; a slice [h, w] is needed")
    _check_colour(path, colour, bits, label=label)
    return PngHeader((height, width), bits, colour)


def _check_colour(path: Path, colour: int, bits: int, *, label: bool) -> None:
    if colour in (_RGB, _RGB_ALPHA):
        what = "labels of one value per pixel" if label else "grey images"
        raise InputError(
            f"{path}: a colour image (RGB); {what} are needed, convert it to 8 or 16 bit grey"
        )
    if colour == _GREY_ALPHA and bits == 16:
        raise InputError(f"{path}: 16 bit grey with alpha; save it without alpha")
    if label:
        return
    if colour == _PALETTE:
        raise InputError(
            f"{path}: an image with a palette, whose stored values are not brightness; save it as 8"
            " or 16 bit grey"
        )
    if bits == 1:
        raise InputError(
            f"{path}: grey values of 1 bit; 8 or 16 bit is needed, save it as 8 bit grey"
        )


def _truncated(path: Path) -> InputError:
    return InputError(
        f"{path}: truncated or damaged (the file ends early); copy or export it again"
    )


def read(path: Path) -> np.ndarray:
    """The values of a PNG file, `[h, w]` bool, uint8 or uint16; indices where it has a palette.

    Raises:
      InputError: it is partly transparent.
      Exception: it is damaged, as the decoder tells.
    """
    with open(path, "rb") as file:
        bits, colour = struct.unpack(">BB", file.read(26)[24:])
        file.seek(0)
        # Opened by its own class: the general one refuses images as large as slices are.
        with PngImageFile(file) as image:
            plane = np.asarray(image)
    if colour == _GREY_ALPHA:
        if plane[..., 1].min() != plane[..., 1].max():
            raise InputError(f"{path}: partly transparent; flatten it and save it without alpha")
        plane = plane[..., 0]
    if bits == 16:
        return plane.astype(np.uint16)
    if colour == _GREY and bits in _SPREAD:
        return plane // np.uint8(_SPREAD[bits])
    return plane
