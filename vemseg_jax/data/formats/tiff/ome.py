"""What the OME-XML of a TIFF file says of the files and planes of its set."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import tifffile

from vemseg_jax.errors import InputError

_ROOT_UUID = re.compile(r"<(?:\w+:)?OME\b[^>]*?\bUUID\s*=\s*[\"']([^\"']+)[\"']")
_BINARY_ONLY = re.compile(r"<(?:\w+:)?BinaryOnly\b[^>]*?\bMetadataFile\s*=\s*[\"']([^\"']+)[\"']")
_LISTED = 8


class OmePlane(NamedTuple):
    """One plane of a set: position in the image, and where it is stored."""

    z: int
    c: int
    t: int
    uuid: str
    file: str
    ifd: int


class OmeSet(NamedTuple):
    """The first image of an OME-XML.

    Attributes:
      sizes: lengths of z, c and t.
      planes: those whose file is named, in the order in which they are listed.
      images: how many images it describes.
    """

    sizes: tuple[int, int, int]
    planes: tuple[OmePlane, ...]
    images: int

    @property
    def files(self) -> tuple[str, ...]:
        """File names, each once, in the order in which they are listed."""
        return tuple(dict.fromkeys(plane.file for plane in self.planes))


def own_uuid(xml: str | None) -> str | None:
    """The UUID that a file's OME-XML gives to this very file."""
    found = _ROOT_UUID.search((xml or "")[:5000])
    return found.group(1) if found else None


def metadata_file(xml: str | None) -> str | None:
    """The file that holds the metadata in place of this one; None where it has its own."""
    found = _BINARY_ONLY.search((xml or "")[:5000])
    return found.group(1) if found else None


def parse(xml: str | None) -> OmeSet | None:
    """The set that an OME-XML describes; None where there is no such text, or it is no XML."""
    if not xml or "<" not in xml or "OME" not in xml[:5000]:
        return None
    try:
        root = ElementTree.fromstring(xml)
        images = [e for e in root.iter() if _name(e) == "Pixels"]
        if not images:
            return None
        z, c, t = (int(images[0].get(f"Size{axis}", 1)) for axis in "ZCT")
        planes = [plane for data in images[0] for plane in _planes(data)]
    except (ElementTree.ParseError, ValueError):
        return None
    return OmeSet((z, c, t), tuple(planes), len(images))


def set_of(path: Path, xml: str | None) -> OmeSet | None:
    """The set that a TIFF file with this OME-XML belongs to, wherever that is described.

    None where there is none, or the file that describes it is not there.
    """
    main = metadata_file(xml)
    if main is None:
        return parse(xml)
    file = path.parent / main
    if not file.is_file() or file == path:
        return None
    if file.suffix.lower() in (".tif", ".tiff", ".tf2", ".tf8", ".btf"):
        with tifffile.TiffFile(file) as tif:
            return parse(tif.pages.first.description)
    return parse(file.read_text(encoding="utf-8", errors="replace"))


def _name(element: ElementTree.Element) -> str:
    # The namespace in the tags differs from version to version.
    return str(element.tag).rpartition("}")[2]


def _planes(data: ElementTree.Element) -> list[OmePlane]:
    if _name(data) != "TiffData":
        return []
    z, c, t = (int(data.get(f"First{axis}", 0)) for axis in "ZCT")
    ifd, count = int(data.get("IFD", 0)), int(data.get("PlaneCount", data.get("NumPlanes", 1)))
    for child in data:
        if _name(child) == "UUID":
            uuid, file = (child.text or "").strip(), child.get("FileName", "")
            return [OmePlane(z + i, c, t, uuid, file, ifd + i) for i in range(count)]
    return []


def check_companions(path: Path, listed: OmeSet) -> None:
    """Raises InputError where files of the set are not beside `path`; names them."""
    missing = [name for name in listed.files if not (path.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{path}: is one file of a set of {len(listed.files)}, of which {len(missing)} are not"
            f" in {path.parent}: {_names(missing)}; put them back beside it under these names, or"
            " give a folder with one file per slice"
        )


def order_of(
    folder: Path, names: Sequence[str], uuids: Sequence[str | None], listed: OmeSet
) -> tuple[list[int], list[str]]:
    """The order in which files of one page each make up the stack, and what to say about it.

    Args:
      folder: of the files.
      names: of the files, in natural order.
      uuids: of the files, None where they have none.
      listed: the set that one of them describes.

    Returns:
      Indices into `names` by rising z, and notes.

    Raises:
      InputError: files of several channels or times, or names that contradict the OME-XML.
    """
    positions = {plane.uuid: plane for plane in listed.planes if plane.uuid}
    by_name = {plane.file: plane for plane in listed.planes}
    planes = [
        positions.get(uuid or "") or by_name.get(name)
        for name, uuid in zip(names, uuids, strict=True)
    ]
    known = [plane for plane in planes if plane is not None]
    others = {(plane.c, plane.t) for plane in known}
    if len(others) > 1:
        raise InputError(
            f"{folder}: its OME-XML says that the files are of {len({c for c, _ in others})}"
            f" channels and {len({t for _, t in others})} times; put those of one channel and time"
            " into a folder of their own"
        )
    notes = []
    # As many as the numbers of the planes that are named have places for.
    there = {plane.file for plane in known}
    absent = [name for name in listed.files if name not in there and name not in names]
    if absent:
        notes.append(
            f"the OME-XML of {names[0]} names {len(listed.files)} files, {len(absent)} of which"
            f" are not in {folder}: {_names(absent)}; the others are stacked as they are"
        )
    zs = [plane.z for plane in known]
    if all(a < b for a, b in itertools.pairwise(zs)):
        return list(range(len(names))), notes
    if len(known) != len(names) or len(set(zs)) != len(zs):
        raise InputError(
            f"{folder}: the names of the files and their OME-XML give different orders of the"
            " slices; rename the files so that they rise with z, or remove those that do not"
            " belong to the set"
        )
    order = sorted(range(len(names)), key=lambda index: zs[index])
    notes.append(
        f"slices are in the order of the OME-XML, from {names[order[0]]} to {names[order[-1]]}, not"
        " in that of the file names"
    )
    return order, notes


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
