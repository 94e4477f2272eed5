"""Recorded lengths in nanometres, and what files record of voxel size and position."""

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# nm, zyx; None where it is not recorded.
VoxelSize = tuple[float | None, float | None, float | None]
# zyx, in voxels of the array itself; nan along an axis whose record cannot be used.
Offset = tuple[float, float, float]

NOT_RECORDED: VoxelSize = (None, None, None)

# Symbols by their exact letters: Mm is not mm.
_SYMBOLS = {
    "fm": 1e-6,
    "pm": 1e-3,
    "nm": 1.0,
    "um": 1e3,
    "\N{GREEK SMALL LETTER MU}m": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "dm": 1e8,
    "m": 1e9,
    "km": 1e12,
    "Å": 0.1,
    "å": 0.1,
    "A": 0.1,
    "in": 2.54e7,
    '"': 2.54e7,
}
_PREFIXES = {
    "femto": 1e-6,
    "pico": 1e-3,
    "nano": 1.0,
    "micro": 1e3,
    "milli": 1e6,
    "centi": 1e7,
    "deci": 1e8,
    "": 1e9,
    "kilo": 1e12,
}
_WORDS = {
    **{f"{prefix}met{end}": nm for prefix, nm in _PREFIXES.items() for end in ("er", "re")},
    "micron": 1e3,
    "angstrom": 0.1,
    "ångström": 0.1,
    "ångstrom": 0.1,
    "inch": 2.54e7,
    "inche": 2.54e7,
}
# Resolutions for screens and printers are given per inch or cm, and left in files of anything.
_PRINT_UNITS = ("in", '"', "inch", "inches", "cm", "centimeter", "centimetre")
_LARGEST_OF_PRINT_UNITS = 5e3


class Recorded(NamedTuple):
    """What a file says of the grid of its voxels.

    Attributes:
      size: nm, zyx.
      offset: of the first voxel in voxels, zyx; None where no position is recorded.
      note: what of a record cannot be used and why, for people; empty where there is nothing.
      bare: the numbers of a size without a unit of length, zyx; None where there are none.
    """

    size: VoxelSize = NOT_RECORDED
    offset: Offset | None = None
    note: str = ""
    bare: Offset | None = None


def nm_per_unit(unit: object) -> float | None:
    """How many nm a unit of length has, however it is spelled; None where it is no length.

    Knows the units of OME-XML, UDUNITS and people: "µm" in all its codes, "um ", "Microns",
    "nanometres". Case counts in symbols, as in Mm and mm, except in nm and um.
    """
    if not isinstance(unit, str):
        return None
    text = _plain(unit)
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    word = text.lower()
    if word in ("nm", "um", "\N{GREEK SMALL LETTER MU}m"):
        return _SYMBOLS[word]
    return _WORDS.get(word) or _WORDS.get(word.removesuffix("s"))


def _plain(unit: str) -> str:
    """A unit without blanks, quotes and the several codes of its characters."""
    text = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\\u03BC", "µ")
    # UTF-8 that was read as Latin-1.
    text = text.replace("Âµ", "µ").replace("Î¼", "µ").replace("Ã…", "Å")
    text = unicodedata.normalize("NFKC", text).strip(" \t\r\n\0.'()[]")
    return text.strip()


def nanometres(value: object, unit: object) -> float | None:
    """A recorded length in nm; None where value or unit make no sense, or are left empty.

    Lengths in inch or cm count below 5 µm only: more is the resolution of a printer or screen
    (72, 96, 300 dpi), which says nothing of the specimen.
    """
    factor = nm_per_unit(unit)
    try:
        length = float(str(value)) * (factor or 0)
    except ValueError:
        return None
    if not 0 < length < math.inf:
        return None
    printed = isinstance(unit, str) and _plain(unit).lower() in _PRINT_UNITS
    return None if printed and length >= _LARGEST_OF_PRINT_UNITS else length


def unit_note(units: Sequence[object]) -> str:
    """Why lengths of these units are not read; empty where all of them are lengths."""
    for unit in units:
        if unit in (None, ""):
            return "it records no unit of length"
        if nm_per_unit(unit) is None:
            return f"its unit {str(unit).strip()!r} is no known length"
    return ""


def offset_in_voxels(position: object, scale: object) -> float:
    """A position divided by the size of a voxel in the same unit; nan where that fails."""
    try:
        start = float(str(position))
        if start == 0:
            return 0.0
        size = float(str(scale))
        found = start / size if size > 0 else math.nan
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def lengths(sizes: Sequence[float | None]) -> str:
    """Lengths in nm for people; `?` where one is not recorded."""
    return ",".join("?" if size is None else f"{size:.6g}" for size in sizes)
