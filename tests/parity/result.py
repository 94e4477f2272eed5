"""One compared quantity."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Result:
    """The largest error of a quantity and what it may be."""

    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return bool(np.isfinite(self.error) and self.error <= self.tolerance)

    def within(self, factor: float, why: str) -> "Result":
        """The same error against `factor` times the tolerance."""
        return Result(f"{self.what} ({why})", self.error, factor * self.tolerance)


def compare(what: str, found, expected, tolerance: float) -> Result:
    """Largest absolute difference; arrays of different shapes have an infinite error."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return Result(f"{what} (shape {found.shape}, expected {expected.shape})", np.inf, tolerance)
    if found.size == 0:
        return Result(f"{what} (empty)", np.inf, tolerance)
    if found.dtype.kind in "US" or expected.dtype.kind in "US":
        return Result(what, float(np.sum(found != expected)), tolerance)
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return Result(what, float(difference.max()), tolerance)
