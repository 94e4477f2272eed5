"""Where windows lie on a slice, and how much each of their pixels counts.

A slice of any size is worked on in boxes; a plan for a box holds the windows that it takes, and
averages the same ones as a plan for the whole slice.
"""

import dataclasses
from typing import Protocol

import numpy as np

# Stride of the reference's windows as a share of their size.
STRIDE_SHARE = 4
# Of a window, on each side: what lies nearer to an edge is left to the next window.
EDGE_SHARE = 8
# A slice that is passed whole is mirrored by so many pixels and up to a multiple of this.
WHOLE_MARGIN, WHOLE_MULTIPLE = 32, 32
# Where it passes in parts, they see so many pixels of their neighbours.
PART_MARGIN = 128
UNIFORM, GAUSSIAN = "uniform", "gaussian"
BLENDINGS = (UNIFORM, GAUSSIAN)

Pair = tuple[int, int]
Box = tuple[Pair, Pair]
Lines = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """The windows over a box of a slice.

    Attributes:
      source: ((y0, y1), (x0, x1)) to read of the slice.
      kernel: (h, w) of a window.
      padding: ((top, bottom), (left, right)) by which `source` is mirrored.
      shape: (h, w) of the mirrored source.
      corners: `[n, 2]` the (y, x) of every window in the mirrored source.
      lines: how much the pixels of a window count: float32 factors along y and along x.
      sums: of these, over all windows, along y and along x of the mirrored source.
      inner: ((y0, y1), (x0, x1)) of the box in the mirrored source.
    """

    source: Box
    kernel: Pair
    padding: Box
    shape: Pair
    corners: np.ndarray
    lines: Lines
    sums: Lines
    inner: Box

    @property
    def weight(self) -> np.ndarray:
        """`[kernel]` float32, how much each pixel of a window counts."""
        return np.outer(*self.lines)

    @property
    def total(self) -> np.ndarray:
        """`[h, w]` float32, the sum of the weights at every mirrored pixel."""
        return np.outer(*self.sums)


class Planner(Protocol):
    """Windows over slices of one shape."""

    def over(self, box: Box | None = None, *, halo: int = 0) -> WindowPlan:
        """The plan for a box, or for the whole slice.

        Args:
          box: ((y0, y1), (x0, x1)) on the slice.
          halo: pixels around it that are wanted too, as far as the slice goes.
        """
        ...


def grown(box: Box, halo: int, shape: Pair) -> Box:
    """The box with a halo, as far as the slice goes."""
    (y0, y1), (x0, x1) = box
    return (
        (max(y0 - halo, 0), min(y1 + halo, shape[0])),
        (max(x0 - halo, 0), min(x1 + halo, shape[1])),
    )


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Windows along one axis: first pixels on the slice, which may lie before or beyond it."""

    size: int
    starts: np.ndarray
    line: np.ndarray


def _plan(box: Box, axes: tuple[_Axis, _Axis]) -> WindowPlan:
    source, padding, shape, starts, inner, sums = [], [], [], [], [], []
    for wanted, axis in zip(box, axes, strict=True):
        kernel = len(axis.line)
        # The first window begins before what is wanted, the last one ends behind it.
        low, high = int(axis.starts[0]), int(axis.starts[-1]) + kernel
        source.append((max(low, 0), min(high, axis.size)))
        padding.append((max(-low, 0), max(high - axis.size, 0)))
        shape.append(high - low)
        starts.append(axis.starts - low)
        inner.append((wanted[0] - low, wanted[1] - low))
        sums.append(np.zeros(high - low, np.float32))
        for start in starts[-1]:
            sums[-1][start : start + kernel] += axis.line
    return WindowPlan(
        (source[0], source[1]),
        (len(axes[0].line), len(axes[1].line)),
        (padding[0], padding[1]),
        (shape[0], shape[1]),
        np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2),
        (axes[0].line, axes[1].line),
        (sums[0], sums[1]),
        (inner[0], inner[1]),
    )


@dataclasses.dataclass(frozen=True)
class WindowGrid:
    """Overlapping square windows over slices of one shape; made by the functions below.

    Attributes:
      shape: (h, w) of the slices.
      starts: first pixels of the windows along y and along x, on the slice; it is mirrored as
        far as they reach beyond it.
      line: `[kernel]` float32, how much the pixels of a window count along each axis.
    """

    shape: Pair
    starts: tuple[np.ndarray, np.ndarray]
    line: np.ndarray

    def over(self, box: Box | None = None, *, halo: int = 0) -> WindowPlan:
        """See `Planner`: the windows whose pixels count somewhere in the box."""
        if box is None:
            box = ((0, self.shape[0]), (0, self.shape[1]))
        box = grown(box, halo, self.shape)
        counting = np.flatnonzero(self.line)
        low, high = int(counting[0]), int(counting[-1]) + 1
        axes = []
        for wanted, starts, size in zip(box, self.starts, self.shape, strict=True):
            if wanted != (0, size):
                starts = starts[(starts + low < wanted[1]) & (starts + high > wanted[0])]
            axes.append(_Axis(size, starts, self.line))
        return _plan(box, (axes[0], axes[1]))


@dataclasses.dataclass(frozen=True)
class WholeSlices:
    """One window for a slice, or one for each of its parts, for networks that see alike everywhere.

    Attributes:
      shape: (h, w) of the slices.
      part: (h, w) of the parts; the last ones may be smaller, but pass in windows as large.
    """

    shape: Pair
    part: Pair

    def over(self, box: Box | None = None, *, halo: int = 0) -> WindowPlan:
        """See `Planner`; the box must be one of the parts, or lie within one."""
        if box is None:
            box = ((0, self.shape[0]), (0, self.shape[1]))
        axes = []
        for wanted, part, size in zip(box, self.part, self.shape, strict=True):
            if part >= size:
                start = -WHOLE_MARGIN
                kernel = -(-(size + 2 * WHOLE_MARGIN) // WHOLE_MULTIPLE) * WHOLE_MULTIPLE
            else:
                start = wanted[0] // part * part - PART_MARGIN
                kernel = -(-(part + 2 * PART_MARGIN) // WHOLE_MULTIPLE) * WHOLE_MULTIPLE
                if wanted[1] > start + PART_MARGIN + part:
                    raise ValueError(f"box {box} lies in several parts of {self.part}")
            axes.append(_Axis(size, np.array([start]), np.ones(kernel, np.float32)))
        return _plan(grown(box, halo, self.shape), (axes[0], axes[1]))


def _mirrored_before(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels mirrored before the slice and in all.

    As the reference does it: a size that fits already gets a whole stride more, and of an odd
    number the last one lies behind. Slices smaller than a window, which the reference cannot
    process, are padded to one window.
    """
    total = kernel - size if size < kernel else stride - (size - kernel) % stride
    return total // 2, total


def plan_windows(shape: Pair, *, kernel: int, stride: int, blending: str = UNIFORM) -> WindowGrid:
    """The reference's windows: `kernel` pixels at every `stride` pixels over a slice `(h, w)`.

    Args:
      shape: of the slice.
      kernel: side of the square windows.
      stride: between them.
      blending: "uniform", as the reference, or "gaussian", with a standard deviation of an
        eighth of the side, so that the edges of windows hardly count.
    """
    starts = []
    for size in shape:
        before, total = _mirrored_before(size, kernel, stride)
        starts.append(np.arange(-before, size + total - before - kernel + 1, stride))
    line = np.ones(kernel, np.float32)
    if blending == GAUSSIAN:
        away = (np.arange(kernel) - (kernel - 1) / 2) / (kernel / 8)
        line = np.exp(-(away**2) / 2).astype(np.float32)
    return WindowGrid(shape, (starts[0], starts[1]), line)


def plan_whole(shape: Pair, *, part: Pair | None = None) -> WholeSlices:
    """Each slice as one window, or where it is larger than `part` in parts that overlap."""
    return WholeSlices(shape, part or shape)


def plan_tiles(shape: Pair, *, kernel: int) -> WindowGrid:
    """The fewest windows in which every pixel lies an eighth of a window from an edge.

    For networks whose attention or pooling spans the window. What lies nearer to an edge does not
    count; the slice is mirrored by as much, so that its own edges have neighbours.
    """
    edge = kernel // EDGE_SHARE
    inner = kernel - 2 * edge
    starts = []
    for size in shape:
        count = -(-size // inner)
        # Spread evenly, so that windows overlap rather than reach far beyond the slice.
        length = max(size, inner)
        first = np.round(np.linspace(0, length - inner, count)).astype(int)
        starts.append(first - edge - (length - size) // 2)
    line = np.zeros(kernel, np.float32)
    line[edge : kernel - edge] = 1
    return WindowGrid(shape, (starts[0], starts[1]), line)
