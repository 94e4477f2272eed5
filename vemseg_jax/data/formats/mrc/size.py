"""Voxel size and position as MRC headers record them."""

import numpy as np

from vemseg_jax.data.formats.physical_size import Offset, Recorded, nanometres, offset_in_voxels

_IMOD = slice(40, 48)
_IMOD_STAMP = 1146047817
_INVERTED_ORIGIN = 4
_UNSET = 1.0


def recorded(header: np.recarray | np.void) -> Recorded:
    """Voxel size and position, zyx, of an MRC header.

    The size is that of the cell by its voxels. 1 A along every axis is what IMOD and others write
    where nobody told them: no record.
    """
    cell = {axis: float(header["cella"][axis]) for axis in "zyx"}
    counts = {axis: int(header[f"m{axis}"]) for axis in "zyx"}
    angstrom = [cell[a] / counts[a] if counts[a] > 0 else 0.0 for a in "zyx"]
    position = _position(header, angstrom)
    if all(abs(size - _UNSET) < 1e-6 for size in angstrom):
        return Recorded(
            offset=position, note="its voxels are 1 A, what is written where nobody gave a size"
        )
    z, y, x = (nanometres(size, "angstrom") for size in angstrom)
    note = "" if z and y and x else f"its cell is {', '.join(f'{v:g}' for v in cell.values())} A"
    return Recorded((z, y, x), position, note)


def _position(header: np.recarray | np.void, angstrom: list[float]) -> Offset | None:
    """Start and origin of the header; None where both are 0, as most programs leave them."""
    sign = -1.0 if _origin_is_of_imod(header) else 1.0
    starts = [float(header[f"n{axis}start"]) for axis in "zyx"]
    origins = [
        offset_in_voxels(sign * float(header["origin"][axis]), size)
        for axis, size in zip("zyx", angstrom, strict=True)
    ]
    # Some fill in both with the same.
    found = origins if any(o != 0 for o in origins) else starts
    z, y, x = found
    return None if z == y == x == 0 else (z, y, x)


def _origin_is_of_imod(header: np.recarray | np.void) -> bool:
    """IMOD subtracts the origin where the standard adds it, unless a flag says otherwise."""
    order = "<" if header["machst"][0] != 0x11 else ">"
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[_IMOD], f"{order}i4")
    return int(stamp) == _IMOD_STAMP and not int(flags) & _INVERTED_ORIGIN
