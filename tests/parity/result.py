"""One compared quantity."""

import dataclasses
from collections.abc import Iterable, Sequence

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


def worst(what: str, errors: Sequence[float], tolerance: float) -> Result:
    """The largest of several errors; nan if one is, and infinite where there is none."""
    return Result(what, float(np.max(errors)) if len(errors) else np.inf, tolerance)


def cases(keys: Iterable[str], key: str) -> list[str]:
    """The cases of a file that have a `key`, of names such as `case/key`."""
    return [k.removesuffix("/" + key) for k in keys if k.endswith("/" + key)]
