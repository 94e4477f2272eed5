"""The header of MRC files, as programs write it: often not quite as the standard has it."""

from typing import Literal, NamedTuple

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from vemseg_jax.data.formats.axes import MAX_PIXELS, MAX_SLICES
from vemseg_jax.errors import InputError

SIZE = 1024
BYTES, NIBBLES = 0, 101
# Values that a mode stores, in numpy's letters.
_TYPES = {BYTES: "u1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", NIBBLES: "u1"}
_REFUSED = {
    3: "complex numbers (16 bit integers)",
    4: "complex numbers (32 bit floats), a Fourier transform",
    16: "colours (RGB)",
}
# Greater numbers are those of another byte order, or damage.
_LAST_MODE = 255
_STAMPS: dict[bytes, Literal["<", ">"]] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
_ORDER_NAMES: dict[Literal["<", ">"], str] = {"<": "little-endian", ">": "big-endian"}
# Space groups from here on are stacks of volumes.
_VOLUME_STACK = 401
# In the second stretch of extra bytes: what IMOD records of its files.
_IMOD = slice(40, 48)
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_NIBBLES = 1, 16


class MrcHeader(NamedTuple):
    """What is needed to read the values.

    Attributes:
      fields: the header, by the names of mrcfile.
      shape: sections, rows, columns.
      dtype: of the values as stored; of mode 0 uint8, whatever they mean, of mode 101 of two
        values each.
      offset: of the first value, in bytes.
      notes: what was odd, for people.
      imod_signed: whether IMOD wrote bytes as signed; None where IMOD did not write the file.
    """

    fields: np.void
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    notes: tuple[str, ...]
    imod_signed: bool | None

    @property
    def mode(self) -> int:
        """Of the MRC standard."""
        return int(self.fields["mode"])

    @property
    def row_items(self) -> int:
        """Values of `dtype` in a row."""
        return -(-self.shape[2] // 2) if self.mode == NIBBLES else self.shape[2]

    @property
    def section_bytes(self) -> int:
        """Of one section."""
        return self.shape[1] * self.row_items * self.dtype.itemsize


def parse(path: object, head: bytes) -> MrcHeader:
    """The header of a file that begins with `head`.

    A machine stamp that is wrong is no reason to refuse a file: the byte order shows in the other
    numbers.

    Raises:
      InputError: no readable header, or values that are no grey values or labels.
    """
    if len(head) < SIZE:
        raise InputError(f"{path}: {len(head)} bytes; the header of an MRC file alone has {SIZE}")
    read = {o: np.frombuffer(head, HEADER_DTYPE.newbyteorder(o), 1)[0] for o in _ORDER_NAMES}
    stamp = head[212:216]
    recorded = _STAMPS.get(stamp[:2])
    plausible = [order for order in read if _is_plausible(read[order])]
    if not plausible:
        raise InputError(
            f"{path}: its header makes no sense ({_numbers(read[recorded or '<'])}); damaged or not"
            " MRC: copy or export it again"
        )
    order = recorded if recorded in plausible else plausible[0]
    notes: list[str] = []
    if recorded != order:
        notes.append(
            f"its machine stamp is {stamp.hex(' ')}"
            + (f" ({_ORDER_NAMES[recorded]})" if recorded else ", which is none")
            + f"; read as {_ORDER_NAMES[order]}, as its other numbers are"
        )
    if head[208:211] != b"MAP":
        notes.append("without the mark MAP, as files from before 2000 are; read as MRC")
    fields = read[order].copy()
    # Others tell the byte order by it.
    fields["machst"] = np.frombuffer(b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0", "u1")
    imod = np.frombuffer(fields["extra2"].tobytes()[_IMOD], f"{order}i4")
    flags = int(imod[1]) if int(imod[0]) == _IMOD_STAMP else None
    _check_mode(path, fields, flags)
    _check_volumes(path, fields)
    return MrcHeader(
        fields=fields,
        shape=(int(fields["nz"]), int(fields["ny"]), int(fields["nx"])),
        dtype=np.dtype(_TYPES[int(fields["mode"])]).newbyteorder(order),
        offset=SIZE + int(fields["nsymbt"]),
        notes=tuple(notes),
        imod_signed=None if flags is None else bool(flags & _IMOD_SIGNED),
    )


def check_length(path: object, header: MrcHeader, size: int) -> tuple[str, ...]:
    """Notes on the length of a file of `size` bytes.

    Raises:
      InputError: it is shorter than its header says.
    """
    sections, section = header.shape[0], header.section_bytes
    needed = header.offset + sections * section
    if size < needed:
        there = max(size - header.offset, 0) // section
        raise InputError(
            f"{path}: truncated: {there} of {sections} sections are there ({size} of {needed}"
            " bytes); copy or export it again"
        )
    extra = size - needed
    if not extra:
        return ()
    more = extra // section
    guess = f", as much as {more} more sections: see whether nz is right" if more else ""
    return (f"{extra} bytes behind the {sections} sections are not read{guess}",)


def _is_plausible(fields: np.void) -> bool:
    nx, ny, nz = (int(fields[name]) for name in ("nx", "ny", "nz"))
    return (
        0 <= int(fields["mode"]) <= _LAST_MODE
        and nx > 0
        and ny > 0
        and nx * ny < MAX_PIXELS
        and 0 <= nz <= MAX_SLICES
        and all(0 <= int(fields[name]) <= 3 for name in ("mapc", "mapr", "maps"))
        and int(fields["nsymbt"]) >= 0
    )


def _numbers(fields: np.void) -> str:
    texts = [f"{name} {int(fields[name])}" for name in ("nx", "ny", "nz", "mode", "nsymbt")]
    return ", ".join(texts)


def _check_mode(path: object, fields: np.void, imod_flags: int | None) -> None:
    mode = int(fields["mode"])
    what = _REFUSED.get(mode, None if mode in _TYPES else "which is not known")
    if mode == BYTES and imod_flags is not None and imod_flags & _IMOD_NIBBLES:
        what = "bytes that hold two values of 4 bit each, as IMOD packs them"
    if what:
        raise InputError(
            f"{path}: MRC mode {mode}, {what}; grey values or labels are needed: save it as bytes"
            " or 16 bit integers (newstack -mode 0 or 6)"
        )


def _check_volumes(path: object, fields: np.void) -> None:
    if int(fields["nz"]) == 0:
        raise InputError(f"{path}: 0 sections (nz) are recorded; export it again")
    mz = int(fields["mz"])
    if int(fields["ispg"]) >= _VOLUME_STACK and 0 < mz < int(fields["nz"]):
        raise InputError(
            f"{path}: {int(fields['nz']) // mz} volumes of {mz} sections each (space group"
            f" {int(fields['ispg'])}); one volume is needed: extract it to a file of its own"
        )
