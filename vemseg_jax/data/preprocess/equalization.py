"""Grey values of one slice at a time (section 2.1.2 of Pagano et al. 2023)."""

from collections.abc import Callable, Iterator

import numpy as np
from skimage import exposure

EQUALIZE, CLAHE, MATCH = "equalize", "clahe", "match"

Histogram = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def equalize(plane: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Histogram equalisation: a grey value becomes its rank, as in scikit-image's equalize_hist.

    Args:
      plane: `[h, w]` uint8 or uint16.
      valid: `[h, w]` bool, the pixels that make up the histogram; all are changed by it.

    Returns:
      `[h, w]` of the same type, 0 to its largest value; a constant slice as it is.
    """
    counts = _counts(plane, valid)
    if np.count_nonzero(counts) < 2:
        return plane
    rank = np.cumsum(counts) / counts.sum()
    table = np.rint(rank * np.iinfo(plane.dtype).max).astype(plane.dtype)
    return _look_up(table, plane)


def clahe(plane: np.ndarray, *, clip_limit: float) -> np.ndarray:
    """Contrast-limited adaptive equalisation by scikit-image, tiles of an eighth of a side.

    Args:
      plane: `[h, w]` uint8 or uint16.
      clip_limit: 0-1, the higher the more contrast.

    Returns:
      `[h, w]` of the same type, 0 to its largest value; a constant slice as it is.
    """
    if plane.min() == plane.max():
        return plane
    result = exposure.equalize_adapthist(plane, clip_limit=clip_limit)
    result *= np.iinfo(plane.dtype).max
    return np.rint(result, out=result).astype(plane.dtype)


def matcher(reference: np.ndarray, valid: np.ndarray | None = None) -> Histogram:
    """A function that gives slices the histogram of `reference`, as match_histograms does.

    Args:
      reference: `[h, w]` uint8 or uint16.
      valid: `[h, w]` bool, its pixels that count.
    """
    wanted = _counts(reference, valid)
    values = np.flatnonzero(wanted)
    ranks = np.cumsum(wanted)[values] / wanted.sum()

    def apply(plane: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        counts = _counts(plane, valid)
        if np.count_nonzero(counts) < 2:
            return plane
        rank = np.cumsum(counts) / counts.sum()
        table = np.rint(np.interp(rank, ranks, values)).astype(plane.dtype)
        return _look_up(table, plane)

    return apply


def _blocks(plane: np.ndarray) -> Iterator[slice]:
    """Rows a block: numpy widens indices and what it counts to 8 bytes a pixel."""
    rows = max(1, 2**20 // plane.shape[1])
    for first in range(0, plane.shape[0], rows):
        yield slice(first, first + rows)


def _counts(plane: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """How often every grey value occurs; over all pixels where none is valid."""
    if valid is not None and not valid.any():
        valid = None
    length = int(np.iinfo(plane.dtype).max) + 1
    counts = np.zeros(length, np.int64)
    for rows in _blocks(plane):
        values = plane[rows].ravel() if valid is None else plane[rows][valid[rows]]
        counts += np.bincount(values, minlength=length)
    return counts


def _look_up(table: np.ndarray, plane: np.ndarray) -> np.ndarray:
    result = np.empty_like(plane)
    for rows in _blocks(plane):
        result[rows] = table[plane[rows]]
    return result
