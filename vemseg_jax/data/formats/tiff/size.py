"""Voxel size and position as TIFF files record them: ImageJ, OME-XML, resolution tags."""

from typing import Any
from xml.etree import ElementTree

import tifffile

from vemseg_jax.data.formats.physical_size import (
    NOT_RECORDED,
    Offset,
    Recorded,
    nanometres,
    nm_per_unit,
    unit_note,
)

_SAME = 0.01
# Values of the tag ResolutionUnit.
_TAG_UNITS = {2: "inch", 3: "cm"}


def recorded(tif: tifffile.TiffFile) -> Recorded:
    """What a TIFF file says of its voxels.

    OME-XML counts before what ImageJ wrote, and that before the resolution tags, which are
    read where they are in inch or cm and too fine to be those of a printer or screen.
    """
    if tif.is_ome and tif.ome_metadata:
        return _ome(tif.ome_metadata)
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej(tif.imagej_metadata, tif.pages.first.tags)
    tags = tif.pages.first.tags
    y, x = (_pixel_size(tags.get(f"{axis}Resolution"), _tag_unit(tags)) for axis in "YX")
    return Recorded((None, y, x))


def common(found: list[Recorded]) -> Recorded:
    """What all files of a folder record; the size only where they agree."""
    first = found[0]
    for other in found[1:]:
        for own, size in zip(first.size, other.size, strict=True):
            if own != size and (own is None or size is None or abs(own - size) > _SAME * own):
                return Recorded(NOT_RECORDED, None, "its files record different sizes")
    return Recorded(first.size, None, first.note)


def _tag_unit(tags: Any) -> str | None:
    tag = tags.get("ResolutionUnit")
    return None if tag is None else _TAG_UNITS.get(int(tag.value))


def _imagej(metadata: dict[str, Any], tags: Any) -> Recorded:
    """Unit of x, which is that of y and z too unless these have their own."""
    unit = metadata.get("unit")
    units = {axis: metadata.get(f"{axis}unit", unit) for axis in "zyx"}
    z = nanometres(metadata.get("spacing"), units["z"])
    y, x = (_imagej_pixel(tags, axis, units[axis]) for axis in "yx")
    note = unit_note(list(units.values()))
    if not note and z is None and "spacing" in metadata:
        note = f"its spacing is {metadata['spacing']} {units['z']}"
    if not note and (y is None or x is None):
        note = f"its pixels per {_tag_unit(tags) or unit} are no size of a pixel in {unit}"
    return Recorded((z, y, x), _imagej_origin(metadata), note)


def _imagej_pixel(tags: Any, axis: str, unit: object) -> float | None:
    """Pixels per unit stand in the resolution tags, whose own unit usually says nothing.

    Where it does, ImageJ itself reads um as cm, and everything else as the description says.
    Other readers take the tags at their word; where that gives a likely size too, neither is
    taken.
    """
    tag, own = tags.get(f"{axis.upper()}Resolution"), _tag_unit(tags)
    by_description, by_tag = _pixel_size(tag, unit), _pixel_size(tag, own)
    if own is None or nm_per_unit(unit) == nm_per_unit(own):
        return by_description
    if nm_per_unit(unit) is None or (own == "cm" and nm_per_unit(unit) == nm_per_unit("um")):
        return by_tag
    return by_description if by_tag is None else None


def _imagej_origin(metadata: dict[str, Any]) -> Offset | None:
    """Where the first voxel lies: ImageJ keeps the voxel that is at 0 and writes none at 0."""
    if not any(f"{axis}origin" in metadata for axis in "zyx"):
        return None
    try:
        z, y, x = (0.0 - float(metadata.get(f"{axis}origin", 0)) for axis in "zyx")
    except (TypeError, ValueError):
        return None
    return z, y, x


def _pixel_size(tag: Any, unit: object) -> float | None:
    if tag is None or not tag.value[0]:
        return None
    return nanometres(tag.value[1] / tag.value[0], unit)


def _ome(xml: str) -> Recorded:
    root = ElementTree.fromstring(xml)
    # The namespace in the tags differs from version to version.
    element = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if element is None:
        return Recorded()
    # The schema says micrometres where a unit is left out.
    units = [element.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    values = [element.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    z, y, x = (nanometres(v, u) for v, u in zip(values, units, strict=True))
    note = unit_note(units)
    unusable = [v for v, n in zip(values, (z, y, x), strict=True) if v is not None and n is None]
    if unusable and not note:
        note = f"a PhysicalSize is {unusable[0]}"
    return Recorded((z, y, x), None, note)
