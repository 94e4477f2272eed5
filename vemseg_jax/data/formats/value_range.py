"""Grey values that are neither 8 nor 16 bit unsigned, mapped linearly to one of the two."""

import threading
from dataclasses import dataclass, field

import numpy as np

from vemseg_jax.errors import InputError

# A linear map of these makes sense, and what it gives.
_MAPPED = {
    "int8": "uint8",
    "int16": "uint16",
    "int32": "uint16",
    "uint32": "uint16",
    "float16": "uint16",
    "float32": "uint16",
    "float64": "uint16",
}
_GREY = ("uint8", "uint16")


@dataclass
class ValueRange:
    """From [low, high] to all of uint8 (from int8) or of uint16 (from all others).

    Values beyond the range are clipped, and counted.

    Attributes:
      low, high: of the values as stored.
      stored: type of the values as stored.
    """

    low: float
    high: float
    stored: np.dtype
    _values: int = 0
    _clipped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16."""
        return np.dtype(_MAPPED[self.stored.name])

    def __call__(self, plane: np.ndarray, where: str) -> np.ndarray:
        """Maps `[h, w]` of the stored type to `dtype`, rounded half to even.

        Raises:
          InputError: a value that is no number; `where` names the slice.
        """
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            count = int((~np.isfinite(plane)).sum())
            raise InputError(
                f"{where}: {count} values are not numbers (nan or inf); replace them before"
                " converting"
            )
        outside = int(((plane < self.low) | (plane > self.high)).sum())
        with self._lock:
            self._values += plane.size
            self._clipped += outside
        scale = np.iinfo(self.dtype).max / (self.high - self.low)
        wide = np.float64 if plane.dtype.itemsize > 2 and plane.dtype != np.float32 else np.float32
        mapped = (np.clip(plane, self.low, self.high).astype(wide) - wide(self.low)) * wide(scale)
        return np.rint(mapped).clip(0, np.iinfo(self.dtype).max).astype(self.dtype)

    @property
    def clipped_share(self) -> float:
        """Of the values mapped so far."""
        return self._clipped / max(self._values, 1)


def make_value_range(
    path: object, dtype: np.dtype, given: tuple[float, float] | None
) -> ValueRange | None:
    """How grey values of a source are mapped; None where they are kept.

    Args:
      path: of the source, for messages.
      dtype: of the values as stored.
      given: `--value_range`, LOW and HIGH.

    Raises:
      InputError: a range is missing, needless or no range, or no range helps.
    """
    dtype = np.dtype(dtype)
    if dtype.name in _GREY:
        if given is not None:
            raise InputError(
                f"--value_range={given[0]:g},{given[1]:g}: {path} is {dtype}, whose values are kept"
                " as they are; leave the flag out"
            )
        return None
    if dtype.name not in _MAPPED:
        raise InputError(
            f"{path}: grey values of type {dtype}; 8 or 16 bit unsigned is needed, or signed"
            " integers or floats with --value_range=LOW,HIGH"
        )
    if given is None:
        raise InputError(
            f"{path}: grey values of type {dtype}; 8 or 16 bit unsigned is needed: give the values"
            f" that become black and white, --value_range=LOW,HIGH, to map them to"
            f" {_MAPPED[dtype.name]}"
        )
    low, high = given
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"--value_range={low:g},{high:g}: must be two numbers, LOW below HIGH")
    return ValueRange(low, high, dtype)
