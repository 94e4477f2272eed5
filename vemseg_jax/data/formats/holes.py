"""Parts of a stack that are not stored, which libraries read as black without a word.

Writers may leave out chunks that hold nothing but the fill value, and copies break off. The two
are told apart by what lies beside a missing chunk: emptiness goes on there, tissue does not end
in a straight line.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vemseg_jax.errors import InputError

if TYPE_CHECKING:
    from vemseg_jax.data.formats.slice_source import SliceSource

REFUSE, FILL = "refuse", "fill"
MISSING_CHUNKS = (REFUSE, FILL)

# Of the voxels beside a missing chunk; noise of a lossy codec stays below.
_TISSUE_SHARE = 0.05
# A label that is cut has about as many pixels at the cut as a little further in; one that ends
# there by chance has fewer.
_CUT_PIXELS, _CUT_DEPTH, _CUT_SHARE = 16, 3, 0.7
# Sides of missing chunks that are looked at; each costs a chunk that is read.
LOCAL_SIDES, REMOTE_SIDES = 4096, 64
_READERS = 4
_LISTED = 5

Region = tuple[slice, slice, slice]
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Holes:
    """What is not stored of a source.

    Attributes:
      text: what is missing where, for people.
      lost: whether it was lost, as far as one can tell, rather than left out as empty.
      doubtful: whether a person should look at it.
      remedy: what to do about what was lost.
    """

    text: str
    lost: bool
    doubtful: bool = True
    remedy: str = "copy or download it again"


class Chunks(NamedTuple):
    """The grid of chunks of a stack.

    Attributes:
      stored: `[z, y, x]` bool, one per chunk.
      size: of a chunk, in voxels, zyx.
      shape: of the stack, in voxels, zyx.
      fill: value of voxels that are not stored.
      read: a region of the stack, its voxels.
      name: of a chunk, by its place in `stored`; of its file where it has one.
      sides: how many sides of missing chunks may be read.
    """

    stored: np.ndarray
    size: Triple
    shape: Triple
    fill: float
    read: Callable[[Region], np.ndarray]
    name: Callable[[Triple], str]
    sides: int = LOCAL_SIDES


def settle_holes(source: "SliceSource", *, missing_chunks: str, label: bool) -> "SliceSource":
    """Looks for parts that are not stored; prints what was found and accepted.

    Args:
      source: of images or labels; nothing is read of one that is stored completely.
      missing_chunks: "refuse" what may have been lost, or "fill" it with the fill value.
      label: empty chunks are normal in labels.

    Returns:
      The source; where chunks cannot be listed, one that refuses the first that is missing when
      it is read.

    Raises:
      InputError: parts that may have been lost, unless they are to be filled.
    """
    if source.find_holes is None:
        return source
    found = source.find_holes(label)
    if found is None:
        return source
    if isinstance(found, Holes):
        if found.lost and missing_chunks != FILL:
            raise InputError(f"{source.path}: {found.text}; {found.remedy}, or {accept(label)}")
        print(f"{'warning: ' if found.doubtful else ''}{source.path}: {found.text}")
        return source
    if missing_chunks == FILL:
        return source
    print(f"{source.path}: its chunks cannot be listed; one that is missing is found when read")
    return replace(source, array=found)


def accept(label: bool = False) -> str:
    """How to read on where something is missing, for messages."""
    what = "background" if label else "black"
    return f"give --missing_chunks=fill to take what is missing as empty ({what})"


def missing_chunk(error: Exception) -> str | None:
    """What is missing, where an error comes from reading a chunk that is not stored."""
    text = " ".join(str(error).split())[:300]
    if "NOT_FOUND" not in text or " is missing" not in text:
        return None
    return f"a chunk is missing ({text}); copy or download it again, or {accept()}"


def judge(chunks: Chunks, *, label: bool) -> Holes | None:
    """Whether chunks that are not stored were lost or left out as empty.

    Args:
      chunks: the grid.
      label: chunks that are missing at fill value 0 are background that nobody stored.

    Returns:
      None where all are stored.
    """
    missing = ~chunks.stored
    if not missing.any():
        return None
    if missing.all():
        text = f"not one of its {missing.size} chunks is stored; all of it would be empty"
        return Holes(text, lost=True)
    text = describe(chunks)
    if label and chunks.fill == 0:
        cut = _count_cut(chunks)
        if not cut:
            return Holes(f"{text}: empty background", lost=False, doubtful=False)
        return Holes(
            f"{text}: read as background; but labels end in a straight line at {cut} of them, as"
            " where a copy broke off",
            lost=False,
        )
    looked, total, tissue = _look(chunks)
    if tissue:
        return Holes(f"{text}, and beside them is tissue: they were lost", lost=True)
    seen = "" if looked == total else f" (looked at {looked} of {total} sides)"
    fill = f"{chunks.fill:g}"
    return Holes(f"{text}: read as {fill}, which is all that lies beside them{seen}", lost=False)


def describe(chunks: Chunks) -> str:
    """How many chunks are missing, and where."""
    missing = ~chunks.stored
    places = np.argwhere(missing)
    z, y, x = (int(i) for i in places[0])
    rows, columns = (
        f"{i * size} to {min((i + 1) * size, end) - 1}"
        for i, size, end in (
            (y, chunks.size[1], chunks.shape[1]),
            (x, chunks.size[2], chunks.shape[2]),
        )
    )
    slices = [
        slice
        for layer in np.flatnonzero(missing.any(axis=(1, 2)))
        for slice in range(
            int(layer) * chunks.size[0], min((int(layer) + 1) * chunks.size[0], chunks.shape[0])
        )
    ]
    return (
        f"{len(places)} of {missing.size} chunks {'is' if len(places) == 1 else 'are'} missing, in"
        f" {in_slices(slices)} (the first at rows {rows}, columns {columns}:"
        f" {chunks.name((z, y, x))})"
    )


def ranges(numbers: list[int], *, most: int = _LISTED) -> str:
    """Rising numbers as ranges: "8-15, 20" (the first of a long list)."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:most]]
    more = f" and {len(runs) - most} more ranges" if len(runs) > most else ""
    return ", ".join(texts) + more


def in_slices(slices: list[int]) -> str:
    """Which slices, for messages: "slice 7", "slices 8-15, 20"."""
    return f"slice{'s' if len(slices) > 1 else ''} {ranges(slices)}"


class _Side(NamedTuple):
    """Where a stored chunk meets a missing one: the axis, the chunk, and which of its ends."""

    axis: int
    chunk: Triple
    end: int


def _sides(stored: np.ndarray, axes: tuple[int, ...]) -> list[_Side]:
    sides: list[_Side] = []
    for axis in axes:
        before, after = (
            np.moveaxis(stored, axis, 0)[part] for part in (slice(None, -1), slice(1, None))
        )
        for mask, shift, end in ((before & ~after, 0, 1), (~before & after, 1, 0)):
            for place in np.argwhere(mask):
                place[0] += shift
                index = np.insert(place[1:], axis, place[0])
                sides.append(_Side(axis, (int(index[0]), int(index[1]), int(index[2])), end))
    return sides


def _spread(sides: list[_Side], most: int) -> list[_Side]:
    """All sides, or as many as may be read, evenly spread."""
    if len(sides) <= most:
        return sides
    return [sides[i] for i in np.linspace(0, len(sides) - 1, most).astype(int)]


def _planes(chunks: Chunks, side: _Side, depth: int) -> Region:
    """The outermost voxels of a chunk at a side, `depth` of them."""
    region = []
    for axis in range(3):
        start = side.chunk[axis] * chunks.size[axis]
        stop = min(start + chunks.size[axis], chunks.shape[axis])
        if axis == side.axis:
            start, stop = (
                (max(start, stop - depth), stop) if side.end else (start, min(stop, start + depth))
            )
        region.append(slice(start, stop))
    return region[0], region[1], region[2]


def _read(chunks: Chunks, sides: list[_Side], depth: int) -> Iterator[tuple[_Side, np.ndarray]]:
    """The outermost voxels at every side; a few are read at once, and none after the last used."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(sides), 4 * _READERS):
            some = sides[start : start + 4 * _READERS]
            yield from zip(
                some,
                pool.map(lambda side: chunks.read(_planes(chunks, side, depth)), some),
                strict=True,
            )


def _look(chunks: Chunks) -> tuple[int, int, bool]:
    """Sides that were looked at, sides there are, and whether tissue lies beside one."""
    every = _sides(chunks.stored, (0, 1, 2))
    sides = _spread(every, chunks.sides)
    for _, values in _read(chunks, sides, 1):
        same = np.isnan(values) if np.isnan(chunks.fill) else values == chunks.fill
        if 1 - same.mean() > _TISSUE_SHARE:
            return len(sides), len(every), True
    return len(sides), len(every), False


def _count_cut(chunks: Chunks) -> int:
    """Sides in the plane at which labels end in a straight line."""
    count = 0
    sides = _spread(_sides(chunks.stored, (1, 2)), chunks.sides)
    for side, values in _read(chunks, sides, _CUT_DEPTH + 1):
        if values.shape[side.axis] <= _CUT_DEPTH:
            continue
        pixels = (np.moveaxis(values, side.axis, 0) != 0).sum(axis=(1, 2))
        at_cut, inside = (pixels[-1], pixels[0]) if side.end else (pixels[0], pixels[-1])
        count += bool(at_cut >= _CUT_PIXELS and at_cut >= _CUT_SHARE * inside)
    return count
