"""Which pages of a TIFF file are its slices: the pages count, not what a description claims."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tifffile

from vemseg_jax.data.formats.tiff import ome as tiff_ome
from vemseg_jax.data.formats.tiff.reader import Place
from vemseg_jax.errors import InputError

# Between the parts of a file that its directories name there may be gaps of a few bytes.
_SLACK = 64
# Of a camera or a place on earth; what they point to is not counted here.
_OWN_DIRECTORIES = (34665, 34853, 40965)
SPLIT = "split"


class Slices(NamedTuple):
    """The slices of a file.

    Attributes:
      places: of every slice, in order.
      page: the first of them.
      axes: what the file records, such as "zyx"; None where it does not.
      notes: what a person should know, such as pages that are not used.
      uuids: that the files of a set must have, by name.
    """

    places: tuple[Place, ...]
    page: Any
    axes: str | None
    notes: tuple[str, ...]
    uuids: Mapping[str, str] = MappingProxyType({})


class _Claim(NamedTuple):
    """What a description says: so many planes, `slices` of them along z."""

    planes: int
    slices: int
    who: str
    # More bytes than these that belong to no page mean that slices were lost.
    slack: int = _SLACK


def truncated(path: Path, what: str) -> InputError:
    """The error of a file that ends early."""
    return InputError(f"{path}: truncated or damaged ({what}); copy or export the file again")


def own_pages(path: Path, pages: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The pages of a file without thumbnails, smaller copies and masks, and notes on those.

    Raises:
      InputError: pages of several sizes or types.
    """
    full = [page for page in pages if not page.subfiletype & 0b101] or list(pages)
    notes = []
    if len(full) < len(pages):
        notes.append(
            f"{path.name}: {len(pages) - len(full)} of its {len(pages)} pages are marked as"
            " thumbnails, smaller copies or masks, and are not used"
        )
    kinds = Counter(describe(page) for page in full)
    if len(kinds) > 1:
        found = "; ".join(f"{count} of {kind}" for kind, count in kinds.most_common(4))
        raise InputError(
            f"{path}: holds {len(kinds)} images of different shape or type ({found}); save the"
            " stack of equal slices by itself"
        )
    return full, notes


def describe(page: Any) -> str:
    """What pages of one stack have in common."""
    samples = "" if page.samplesperpixel == 1 else f", {page.samplesperpixel} samples"
    return f"{page.imagelength} x {page.imagewidth} {page.dtype}, {page.bitspersample} bit{samples}"


def find_slices(
    path: Path, tif: tifffile.TiffFile, every: list[Any], *, alone: bool, confirmed: bool
) -> Slices:
    """The slices of a file, or of the set of files that its metadata names.

    Args:
      path: of the file.
      tif: the file, open.
      every: its pages, each with its own tags.
      alone: only its own pages, whatever set it belongs to.
      confirmed: pages are slices whatever the metadata call them (`--axes=zyx`).

    Raises:
      InputError: a set with missing files, several images, or pages that are lost.
    """
    pages, notes = own_pages(path, every)
    listed = tiff_ome.set_of(path, _ome_xml(tif))
    if listed is not None and len(listed.files) > 1:
        if not alone:
            return _of_set(path, listed, pages[0])
        listed = None  # which speaks of other files too
    if not alone:
        main = tiff_ome.metadata_file(pages[0].description)
        if main is not None:
            notes.append(
                f"{path.name} belongs to a set whose metadata are in {main}; only its own"
                f" {len(pages)} page(s) are read"
            )
    claim = _claim(tif, every, pages[0], listed)
    raw = None if len(pages) > 1 or claim is None else _raw_places(path, tif, pages[0], claim)
    if raw is not None:
        series = _series(tif)
        return Slices(raw, pages[0], _axes(path, series[0]) if series else None, tuple(notes))
    lost = _unaccounted(tif, every)
    if claim is not None and claim.planes > len(pages) and lost > claim.slack:
        raise truncated(
            path,
            f"{len(pages)} of {claim.planes} slices are there, and {lost:,} bytes are of no page",
        )
    _check_tail(path, pages, lost)
    if not alone and lost >= max(sum(pages[0].databytecounts), _SLACK):
        notes.append(
            f"{path.name}: {lost:,} bytes belong to none of its {len(pages)} page(s); look whether"
            " slices are missing"
        )
    if claim is not None and claim.planes != len(pages):
        order, axes = [page.index for page in pages], None
        if alone:
            # Each slice of a set that was split may keep the description of the whole.
            notes.append(SPLIT)
        else:
            notes.append(_mismatch(path, claim, len(pages), confirmed=confirmed))
    else:
        order, axes = _order(path, tif, pages, confirmed=confirmed)
    places = tuple(Place(path, index) for index in order)
    return Slices(places, pages[0], axes, tuple(notes))


def _check_tail(path: Path, pages: list[Any], lost: int) -> None:
    """Refuses a single page that is followed by just the bytes of more slices like it."""
    page = pages[0]
    if len(pages) > 1 or page.compression != 1:
        return
    more, rest = divmod(lost, max(sum(page.databytecounts), 1))
    if more and rest <= _SLACK:
        raise InputError(
            f"{path}: has one page, and behind it as many bytes as {more} more slices take, which"
            " nothing describes; export the stack again with a page for every slice"
        )


def _ome_xml(tif: tifffile.TiffFile) -> str | None:
    text = tif.pages.first.description
    return text if tif.is_ome or tiff_ome.metadata_file(text) else None


def _claim(
    tif: tifffile.TiffFile, every: Sequence[Any], page: Any, listed: tiff_ome.OmeSet | None
) -> _Claim | None:
    """How many planes the description of a file promises; None where it does not."""
    if page.samplesperpixel != 1:
        return None
    if tif.is_imagej and tif.imagej_metadata:
        meta = tif.imagej_metadata
        c, z, t = (max(_whole(meta.get(k)), 1) for k in ("channels", "slices", "frames"))
        planes = max(c * z * t, _whole(meta.get("images")))
        return _Claim(planes, z if c * z * t == planes else planes, "its ImageJ description")
    if listed is not None:
        if listed.images > 1:
            return None
        # Its planes have pages each, and editors leave earlier versions of its text behind.
        slack = max(sum(page.databytecounts), _SLACK)
        return _Claim(math.prod(listed.sizes), listed.sizes[0], "its OME-XML", slack)
    if tif.is_shaped:
        shape = _shape(every)
    else:
        shape = next((series.shape for series in _series(tif)), ()) if tif.is_stk else ()
    planes = math.prod(shape[:-2])
    return _Claim(planes, planes, "its description") if len(shape) > 2 else None


def _shape(every: Sequence[Any]) -> tuple[int, ...]:
    """The shape that Python's tifffile records; empty where it wrote several images."""
    texts = [page.shaped_description for page in every if page.is_shaped]
    try:
        return tuple(int(n) for n in json.loads(texts[0])["shape"]) if len(texts) == 1 else ()
    except (ValueError, KeyError, TypeError):
        return ()


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 1


def _raw_places(
    path: Path, tif: tifffile.TiffFile, page: Any, claim: _Claim
) -> tuple[Place, ...] | None:
    """Slices that follow each other behind one page, as ImageJ stores stacks above 4 GB."""
    if claim.planes < 2 or not page.is_contiguous or page.bitspersample % 8:
        return None
    size = page.imagelength * page.imagewidth * page.bitspersample // 8
    offset = page.dataoffsets[0]
    if offset + claim.planes * size > tif.filehandle.size:
        return None
    return tuple(Place(path, page.index, offset + z * size) for z in range(claim.planes))


def _series(tif: tifffile.TiffFile) -> list[Any]:
    try:
        return list(tif.series)
    except Exception:  # descriptions can be wrong in every way; the pages count
        return []


def _axes(path: Path, series: Any) -> str | None:
    """The axes that a series of slices records; None where it does not."""
    if series.ndim not in (2, 3) or not series.axes.endswith("YX"):
        raise InputError(
            f"{path}: axes {series.axes} with shape {series.shape}; one grey channel of slices"
            " (ZYX) is needed: save one channel and time by itself"
        )
    if series.ndim == 2 or series.axes[0] in "IQ":
        return None
    return f"{series.axes[0]}YX".lower()


def _order(
    path: Path, tif: tifffile.TiffFile, pages: list[Any], *, confirmed: bool
) -> tuple[list[int], str | None]:
    """Numbers of the pages in the order of the slices, and the axes that are recorded."""
    in_order = [page.index for page in pages]
    if pages[0].samplesperpixel != 1:
        return in_order, None
    series = [s for s in _series(tif) if not _is_reduced(s, set(in_order))]
    if len(series) == 1:
        found = [-1 if page is None else int(page.index) for page in series[0].pages]
        if sorted(found) == in_order and math.prod(series[0].shape[:-2]) == len(pages):
            return found, _axes(path, series[0])
        return in_order, None
    single = all(s.ndim == 2 and s.kind == "shaped" for s in series)
    if confirmed or single or series[0].kind in ("generic", "uniform"):
        # Pages written one by one, or compressed in several ways.
        return in_order, None
    shapes = ", ".join(f"{s.shape} {s.dtype}" for s in series[:4])
    raise InputError(
        f"{path}: holds {len(series)} images ({shapes}) by its metadata; save one of them by"
        " itself, or give --axes=zyx if all its pages are slices of one stack"
    )


def _is_reduced(series: Any, wanted: set[int]) -> bool:
    """Whether none of its pages is one of the full ones."""
    return all(page is not None and page.index not in wanted for page in series.pages)


def _mismatch(path: Path, claim: _Claim, pages: int, *, confirmed: bool) -> str:
    """The note on a description that does not fit; several channels have to be confirmed."""
    if claim.planes != claim.slices and pages != claim.slices and not confirmed:
        raise InputError(
            f"{path}: {claim.who} claims {claim.planes} planes of several channels or times, but"
            f" {pages} pages are there; give --axes=zyx if all of them are slices of one stack"
        )
    return (
        f"{path.name}: {claim.who} claims {claim.planes} slices, but {pages} pages are there; the"
        " pages are the slices"
    )


def _unaccounted(tif: tifffile.TiffFile, pages: Sequence[Any]) -> int:
    """Bytes of a file that belong to no page, tag or directory; 0 where that is not known."""
    entry, inline, frame = (20, 8, 16) if tif.is_bigtiff else (12, 4, 6)
    used = 16 if tif.is_bigtiff else 8
    for page in pages:
        if page.subifds or any(code in page.tags for code in _OWN_DIRECTORIES):
            return 0
        used += sum(page.databytecounts) + frame + entry * len(page.tags)
        used += sum(size for size in (t.valuebytecount for t in page.tags) if size > inline)
    return max(0, tif.filehandle.size - used)


def _of_set(path: Path, listed: tiff_ome.OmeSet, page: Any) -> Slices:
    """The slices of a set of several files, each of which names all of them."""
    tiff_ome.check_companions(path, listed)
    depth, channels, times = listed.sizes
    if listed.images > 1:
        raise InputError(
            f"{path}: its OME-XML describes {listed.images} images; export one of them by itself"
        )
    if channels * times > 1:
        raise InputError(
            f"{path}: a set of {channels} channels and {times} times; one grey channel of slices"
            " is needed: export one channel and time by itself"
        )
    planes = {plane.z: plane for plane in listed.planes}
    absent = [z for z in range(depth) if z not in planes]
    if absent or len(planes) != len(listed.planes) or max(planes) >= depth:
        what = f"slice {absent[0]} is in no file" if absent else "planes are listed twice"
        raise InputError(
            f"{path}: its OME-XML lists {len(listed.planes)} planes of {depth} slices"
            f" ({what}); export the set again, or give a folder with one file per slice"
        )
    places = tuple(Place(path.parent / planes[z].file, planes[z].ifd) for z in range(depth))
    note = f"{path.name} is one of {len(listed.files)} files of a set; all of them are read"
    uuids = {plane.file: plane.uuid for plane in listed.planes}
    return Slices(places, page, "zyx", (note,), uuids)
