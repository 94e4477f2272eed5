"""What the bytes (mode 0) of an MRC file mean: 0 to 255 or -128 to 127."""

import numpy as np

from vemseg_jax.data.formats.mrc.header import MrcHeader
from vemseg_jax.errors import InputError

SIGNED, UNSIGNED, IMOD = "signed", "unsigned", "imod"
MRC_BYTES = (SIGNED, UNSIGNED, IMOD)

# Sections that are looked at where the header leaves doubt.
_SECTIONS = 16
# Neighbouring pixels differ less where bytes are read as they were meant.
_CLEAR = 0.5
_FLAG = (
    "say what they mean: --mrc_bytes=signed (-128 to 127), unsigned (0 to 255) or imod (0 to"
    " 255, stored as -128 to 127)"
)


def decide_bytes(
    path: object, header: MrcHeader, data: np.ndarray, *, label: bool, given: str | None
) -> tuple[str, tuple[str, ...]]:
    """How bytes are read, and notes on why.

    The standard has them signed; IMOD, EMPIAR and others wrote unsigned ones. IMOD's own mark
    counts first: bytes that it stores as signed are 0 to 255 less 128. Then the statistics of the
    header, then the values.

    Args:
      path: for messages.
      header: of mode 0.
      data: `[sections, rows, columns]` uint8, as stored; a few sections are read where needed.
      label: the values are labels.
      given: `--mrc_bytes`, one of `MRC_BYTES`.

    Raises:
      InputError: it cannot be told.
    """
    recorded = {None: None, True: IMOD, False: UNSIGNED}[header.imod_signed]
    if given is not None:
        differs = recorded is not None and recorded != given
        why = f"bytes are read as {given} (--mrc_bytes), but IMOD recorded {recorded}"
        return given, (why,) if differs else ()
    if recorded == IMOD:
        return IMOD, ("bytes that IMOD stored as signed: 128 is added, as IMOD shows them",)
    if recorded is not None:
        return recorded, ()
    low, high = _statistics(header)
    if low is not None and low >= 0 and high > 127:
        return UNSIGNED, (f"bytes are unsigned: its header has values {low:g} to {high:g}",)
    sample = data[np.unique(np.linspace(0, len(data) - 1, _SECTIONS).astype(int))]
    if sample.max() < 128 and (low is None or low >= 0):
        # The same either way.
        return UNSIGNED, ()
    if label:
        _decide_label(path, sample, low)
        return UNSIGNED, ()
    unsigned, signed = _roughness(sample), _roughness(sample ^ 0x80)
    if low is not None and low < 0:
        if unsigned < _CLEAR * signed:
            raise InputError(
                f"{path}: its header has values {low:g} to {high:g}, so that bytes are signed, but"
                f" they look unsigned; {_FLAG}"
            )
        return SIGNED, ()
    if low is None and unsigned < _CLEAR * signed:
        return UNSIGNED, ("bytes are unsigned by the look of them; the header does not say",)
    if low is None and signed < _CLEAR * unsigned:
        return SIGNED, ("bytes are signed by the look of them; the header does not say",)
    raise InputError(
        f"{path}: bytes may be signed or unsigned, and its header does not say; {_FLAG}"
    )


def read_bytes(plane: np.ndarray, kind: str) -> np.ndarray:
    """A plane of bytes as stored, uint8, as what they mean."""
    if kind == IMOD:
        return plane ^ np.uint8(0x80)
    return plane.view(np.int8) if kind == SIGNED else plane


def _decide_label(path: object, sample: np.ndarray, low: float | None) -> None:
    """Raises InputError where bytes of a label, of which some are 128 or more, may be signed."""
    if low is None and (sample == 0).any():
        return
    values = np.unique(sample.view(np.int8))
    text = ", ".join(str(int(v)) for v in values[:6])
    hint = "" if (sample == 0).any() else ", as IMOD stores 0 as -128 and 1 as -127"
    raise InputError(f"{path}: label values {text} as signed bytes{hint}; {_FLAG}")


def _statistics(header: MrcHeader) -> tuple[float | None, float]:
    """Least and greatest value by the header; None where it has none that can be right."""
    low, high, mean = (float(header.fields[name]) for name in ("dmin", "dmax", "dmean"))
    if not -128 <= low < high <= 255 or not low <= mean <= high or (low < 0 and high > 127):
        return None, 0.0
    return low, high


def _roughness(values: np.ndarray) -> float:
    """Mean difference of neighbours along rows, of bytes as unsigned."""
    return float(np.abs(np.diff(values.astype(np.int16), axis=2)).mean())
