"""TIFF files checked from their headers, before any pixel is read."""

import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from vemseg_jax.data.formats.axes import MAX_PIXELS
from vemseg_jax.data.formats.physical_size import Offset, Recorded, VoxelSize
from vemseg_jax.data.formats.tiff import size as tiff_size
from vemseg_jax.data.formats.tiff.ome import own_uuid
from vemseg_jax.data.formats.tiff.reader import Place, has_alpha, keeps_inverted
from vemseg_jax.data.formats.tiff.slices import Slices, describe, find_slices, truncated
from vemseg_jax.data.formats.unknown import explain
from vemseg_jax.data.store.failures import is_damage, reason
from vemseg_jax.errors import InputError

# Whatever it warns of is checked here and raised as an error that names the file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHAIN = "its directory of pages ends early"


class Inverted(NamedTuple):
    """Slices with white as 0: those that are turned round, and labels that keep their values."""

    turned: int
    kept: int


class TiffHeader(NamedTuple):
    """What the headers of a TIFF file say.

    `axes` is None unless the file records what its pages are; `voxel_size` is nm, zyx, None
    where it is not recorded; `offset` and `size_note` are as in `Recorded`. `places` is where each
    slice is stored, `inverted` how many have white as 0; `notes` is what a person should know,
    `xml` the OME-XML.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    axes: str | None
    voxel_size: VoxelSize
    places: tuple[Place, ...]
    inverted: Inverted
    notes: tuple[str, ...]
    xml: str | None
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
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        magic = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 4 else 0
        if magic not in (42, 43):
            raise InputError(f"{path}: {explain(path)}")
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
        except (struct.error, EOFError, OverflowError, OSError) as error:
            if not is_damage(error):
                raise
            raise truncated(path, _CHAIN) from None
    if not seen:
        raise truncated(path, _CHAIN)
    return len(seen)


def read_header(
    path: Path,
    *,
    label: bool,
    ranged: bool = False,
    alone: bool = False,
    confirmed: bool = False,
) -> TiffHeader:
    """Checks every page of a TIFF file, or of a set of them, without decoding it.

    Args:
      path: one page, or a stack of them: plain, ImageJ, OME-TIFF, BigTIFF; one file of a set
        stands for all of them.
      label: integers of any width, palettes and inverted displays are accepted; otherwise only
        grey values of up to 16 bit.
      ranged: other grey values will do too, as they are going to be mapped.
      alone: only this file, whatever set it belongs to.
      confirmed: pages are slices whatever the file calls them.

    Raises:
      InputError: not a TIFF file, truncated, colour, pages of several shapes or types, or
        pages that are not slices.
    """
    with failing(path):
        directories = count_directories(path)
        with tifffile.TiffFile(path) as tif:
            # Before anything else, after which pages may share the tags of the first.
            pages = list(tif.pages)
            _check_page(path, pages[0], label=label, ranged=ranged)
            if len(pages) != directories:
                raise truncated(path, f"{len(pages)} of {directories} pages can be read")
            found = find_slices(path, tif, pages, alone=alone, confirmed=confirmed)
            recorded = tiff_size.recorded(tif)
            inverted = _check_files(path, pages, found, label=label, ranged=ranged)
    first = found.page
    xml = first.description
    return TiffHeader(
        shape=(len(found.places), int(first.imagelength), int(first.imagewidth)),
        dtype=np.dtype(first.dtype).newbyteorder("="),
        axes=found.axes,
        voxel_size=recorded.size,
        offset=recorded.offset,
        size_note=recorded.note,
        places=found.places,
        inverted=inverted,
        notes=found.notes,
        xml=xml if "OME" in xml[:5000] else None,
    )


@contextmanager
def failing(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises into an error that names the file and what happened."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # The reader fails in many ways on damaged tags; all mean the same to the user.
        why = reason(error, damaged="")
        if why:
            raise InputError(f"{path}: {why}") from error
        raise truncated(path, f"{type(error).__name__}: {error}") from error


def _check_files(
    path: Path, pages: list[Any], found: Slices, *, label: bool, ranged: bool
) -> Inverted:
    """Checks every page that is a slice, in whatever file; which of them are inverted."""
    numbers: dict[Path, list[int]] = {}
    for place in found.places:
        numbers.setdefault(place.file, []).append(place.page)
    inverted = Inverted(0, 0)
    for file, chosen in numbers.items():
        with failing(file):
            if file == path:
                own = _check_slices(file, pages, chosen, found, label=label, ranged=ranged)
            else:
                count_directories(file)
                with tifffile.TiffFile(file) as tif:
                    own = _check_slices(
                        file, list(tif.pages), chosen, found, label=label, ranged=ranged
                    )
            inverted = Inverted(*(a + b for a, b in zip(inverted, own, strict=True)))
    return inverted


def _check_slices(
    file: Path, pages: list[Any], chosen: list[int], found: Slices, *, label: bool, ranged: bool
) -> Inverted:
    uuid, own = found.uuids.get(file.name), own_uuid(pages[0].description)
    if uuid and own and uuid != own:
        raise InputError(
            f"{file}: not the file that the OME-XML of its set means (its UUID is {own}, not"
            f" {uuid}); it was replaced or renamed: put the right one back, or give a folder with"
            " one file per slice"
        )
    expected, turned, kept = describe(found.page), 0, 0
    for number in chosen:
        if number >= len(pages):
            raise truncated(file, f"page {number} is listed, {len(pages)} are there")
        page = pages[number]
        _check_page(file, page, label=label, ranged=ranged)
        if describe(page) != expected:
            raise InputError(
                f"{file}: page {number} is {describe(page)}, but others are {expected}; all slices"
                " must have one shape and type"
            )
        _check_data(file, page)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            keeps = label and keeps_inverted(page)
            turned, kept = turned + (not keeps), kept + keeps
    return Inverted(turned, kept)


def _check_page(path: Path, page: Any, *, label: bool, ranged: bool) -> None:
    photometric = getattr(page.photometric, "name", str(page.photometric))
    grey = photometric in ("MINISBLACK", "MINISWHITE")
    samples = page.samplesperpixel
    single = samples == 1 and (grey or photometric == "PALETTE")
    if not single and not (grey and has_alpha(page)):
        raise InputError(
            f"{path}: a colour image ({photometric}, {samples} samples per pixel);"
            f" {'labels of one value per pixel' if label else 'grey images'} are needed, convert it"
            " to 8 or 16 bit grey"
        )
    orientation = page.tags.get("Orientation")
    if orientation is not None and int(orientation.value) > 1:
        raise InputError(
            f"{path}: orientation tag {int(orientation.value)} (flipped or turned for display);"
            " save it upright, with orientation 1"
        )
    if page.ndim != 1 + samples or not 0 < page.size < MAX_PIXELS:
        raise InputError(f"{path}: page of shape {page.shape}; a 2-D slice [h, w] is needed")
    dtype, bits = page.dtype, page.bitspersample
    if label and (dtype is None or dtype.kind not in "uib"):
        raise InputError(f"{path}: label of type {dtype}; an integer type is needed")
    if photometric == "MINISWHITE" and (dtype is None or dtype.kind not in "ub" or bits > 16):
        raise InputError(
            f"{path}: an inverted image (MinIsWhite) of type {dtype}; save it with black as 0"
        )
    if label:
        return
    if photometric == "PALETTE" and not _is_grey_ramp(page):
        raise InputError(
            f"{path}: {photometric} image, whose stored values are not brightness; save it as 8"
            " or 16 bit grey with black as 0"
        )
    # Values of 10, 12 or 14 bit are unpacked as they are.
    usual = dtype is not None and dtype.kind == "u" and 1 < bits <= 16
    if not usual and (dtype is None or bits % 8 or not ranged):
        raise InputError(
            f"{path}: grey values of type {dtype}, {bits} bit; 8 or 16 bit unsigned is needed"
            + ("" if bits == 1 else ", or --value_range=LOW,HIGH to say which values become black")
            + ("; save it as 8 bit grey" if bits == 1 else " and white")
        )


def _is_grey_ramp(page: Any) -> bool:
    if page.photometric.name != "PALETTE" or page.colormap is None:
        return False
    r, g, b = np.asarray(page.colormap, np.int64)
    return bool((r == g).all() and (g == b).all() and (np.diff(r) > 0).all())


def _check_data(path: Path, page: Any) -> None:
    size = page.parent.filehandle.size
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset == 0 and count == 0:
            raise InputError(
                f"{path}: page {page.index} has strips or tiles that were never written (a sparse"
                " file); export it again in full"
            )
        if offset <= 0 or count <= 0 or offset + count > size:
            raise truncated(path, f"page {page.index} lies beyond the end of the file")
    first = page.keyframe
    if first.compression == 1 and sum(page.databytecounts) * 8 < first.size * first.bitspersample:
        raise truncated(path, f"page {page.index} has too few bytes")
