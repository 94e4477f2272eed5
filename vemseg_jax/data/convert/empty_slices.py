"""Labelled slices without the structure: is it absent there, or did nobody paint them?

A label stack has every slice. Where few were painted, the others hold zeros, which look like slices
without the structure and would be learned as background. What is known of a painted structure
tells the two apart: it goes on from slice to slice, and it grows smaller before it ends.
"""

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# What is done with slices without the structure: `EMPTY` leaves them unlabelled, `NONE` takes
# them as labelled, as background; without a word doubtful ones are refused.
EMPTY, NONE = "empty", "none"
# Pixels of the longer side of what is kept of a mask.
COARSE_SIDE = 256
# A structure that ends grows smaller: of a sphere the last slice is about half the one before.
ABRUPT_RATIO = 0.67
# An end that large, of the largest slice there is, is none.
LARGE = 0.5
# Share of a mask that lies on the mask at the other side of a gap.
OVERLAP = 0.25


@dataclass
class LabelContent:
    """What was read of the labels of one structure; filled from several threads.

    Attributes:
      pixels: of the structure, by labelled slice.
      known: labelled pixels, by slice.
      coarse: masks of the structure thinned to `COARSE_SIDE`, packed bits; by slice that has it.
    """

    pixels: dict[int, int] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)
    coarse: dict[int, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, z: int, mask: np.ndarray, *, known: int) -> int:
        """Takes slice z: `mask` bool `[h, w]`; returns the pixels of the structure."""
        pixels = int(np.count_nonzero(mask))
        step = -(-max(mask.shape) // COARSE_SIDE)
        coarse = np.packbits(mask[::step, ::step]) if pixels else None
        with self._lock:
            self.pixels[z], self.known[z] = pixels, known
            if coarse is not None:
                self.coarse[z] = coarse
        return pixels

    @property
    def empty(self) -> tuple[int, ...]:
        """Labelled slices without the structure, ascending."""
        return tuple(z for z in sorted(self.pixels) if not self.pixels[z])

    @property
    def painted(self) -> tuple[int, ...]:
        """Labelled slices with the structure, ascending."""
        return tuple(z for z in sorted(self.pixels) if self.pixels[z])


def doubtful(content: LabelContent) -> str | None:
    """Why empty slices look as if nobody had painted them; None where they do not.

    Only slices side by side are compared: labels of single slices far apart raise no doubt.
    """
    pixels, runs = content.pixels, _runs(content.pixels)
    if not content.empty or not runs:
        return None
    edges = [(z, inner) for run in runs for z, inner in _edges(run, pixels)]
    if not edges:
        return None
    median = float(np.median([pixels[z] for z in content.painted]))
    alone = sum(len(run) for run in runs if len(run) == 1 and _edges(run, pixels))
    if alone > len(content.painted) / 2:
        return "slices that show it stand alone between empty ones"
    abrupt = [z for z, inner in edges if _abrupt(pixels, z, inner, median)]
    if any(_goes_on(content, a[-1], b[0], abrupt) for a, b in itertools.pairwise(runs)):
        return "it goes on behind the empty slices as it was before them"
    largest = max(pixels.values())
    if 2 * len(abrupt) >= len(edges) or any(pixels[z] >= LARGE * largest for z in abrupt):
        return "it ends abruptly, without growing smaller before"
    return None


def _runs(pixels: Mapping[int, int]) -> list[list[int]]:
    """Stretches of slices side by side that show the structure."""
    runs: list[list[int]] = []
    for z in sorted(z for z, n in pixels.items() if n):
        if runs and runs[-1][-1] == z - 1:
            runs[-1].append(z)
        else:
            runs.append([z])
    return runs


def _edges(run: list[int], pixels: Mapping[int, int]) -> list[tuple[int, int]]:
    """Ends of a stretch with a labelled, empty slice beside: the last slice, and the one before."""
    first, last = run[0], run[-1]
    edges = [(first, min(first + 1, last))] if first - 1 in pixels else []
    return edges + ([(last, max(last - 1, first))] if last + 1 in pixels else [])


def _abrupt(pixels: Mapping[int, int], z: int, inner: int, median: float) -> bool:
    before = pixels[inner] if inner != z else median
    return pixels[z] >= ABRUPT_RATIO * before


def _goes_on(content: LabelContent, a: int, b: int, abrupt: list[int]) -> bool:
    """Whether the same structure lies on both sides of labelled, empty slices between a and b."""
    if not {a, b} <= set(abrupt) or any(z not in content.pixels for z in range(a, b)):
        return False
    one, other = np.unpackbits(content.coarse[a]), np.unpackbits(content.coarse[b])
    least = min(int(one.sum()), int(other.sum()))
    return least > 0 and int((one & other).sum()) >= OVERLAP * least
