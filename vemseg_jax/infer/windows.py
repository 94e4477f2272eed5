"""Where windows lie on a slice, and how much each of their pixels counts."""

import dataclasses

import numpy as np

# Stride of the reference's windows as a share of their size.
STRIDE_SHARE = 4
# Of a window, on each side: what lies nearer to an edge is left to the next window.
EDGE_SHARE = 8
# A slice that is passed whole is mirrored by so many pixels and up to a multiple of this.
WHOLE_MARGIN, WHOLE_MULTIPLE = 32, 32
UNIFORM, GAUSSIAN = "uniform", "gaussian"
BLENDINGS = (UNIFORM, GAUSSIAN)

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Windows over one slice.

    Attributes:
      kernel: (h, w) of a window.
      padding: ((top, bottom), (left, right)) by which the slice is mirrored.
      shape: (h, w) of the mirrored slice.
      corners: `[n, 2]` the (y, x) of every window in the mirrored slice.
      weight: `[kernel]` float32, how much each pixel of a window counts.
      total: `[h, w]` float32, the sum of the weights at every mirrored pixel.
    """

    kernel: Pair
    padding: tuple[Pair, Pair]
    shape: Pair
    corners: np.ndarray
    weight: np.ndarray
    total: np.ndarray


def _plan(
    shape: Pair,
    kernel: Pair,
    padding: tuple[Pair, Pair],
    starts: tuple[np.ndarray, np.ndarray],
    weight: np.ndarray,
) -> WindowPlan:
    padded = tuple(size + sum(pad) for size, pad in zip(shape, padding, strict=True))
    corners = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2)
    total = np.zeros(padded, np.float32)
    for y, x in corners:
        total[y : y + kernel[0], x : x + kernel[1]] += weight
    return WindowPlan(kernel, padding, (padded[0], padded[1]), corners, weight, total)


def _axis_padding(size: int, kernel: int, stride: int) -> Pair:
    """Total padding split in two, the odd pixel last.

    As the reference does it: a size that fits already gets a whole stride more. Slices smaller
    than a window, which the reference cannot process, are padded to one window.
    """
    total = kernel - size if size < kernel else stride - (size - kernel) % stride
    return total // 2, total - total // 2


def plan_windows(shape: Pair, *, kernel: int, stride: int, blending: str = UNIFORM) -> WindowPlan:
    """The reference's windows: `kernel` pixels at every `stride` pixels over a slice `(h, w)`.

    Args:
      shape: of the slice.
      kernel: side of the square windows.
      stride: between them; an eighth of the area is enough at half the side.
      blending: "uniform", as the reference, or "gaussian", with a standard deviation of an
        eighth of the side, so that the edges of windows hardly count.
    """
    padding = (_axis_padding(shape[0], kernel, stride), _axis_padding(shape[1], kernel, stride))
    starts = tuple(
        np.arange(0, size + sum(pad) - kernel + 1, stride)
        for size, pad in zip(shape, padding, strict=True)
    )
    weight = np.ones((kernel, kernel), np.float32)
    if blending == GAUSSIAN:
        away = (np.arange(kernel) - (kernel - 1) / 2) / (kernel / 8)
        line = np.exp(-(away**2) / 2)
        weight = np.outer(line, line).astype(np.float32)
    return _plan(shape, (kernel, kernel), padding, (starts[0], starts[1]), weight)


def plan_whole(shape: Pair) -> WindowPlan:
    """One window, the slice mirrored by a margin, for networks that see alike everywhere."""
    padding = []
    for size in shape:
        padded = -(-(size + 2 * WHOLE_MARGIN) // WHOLE_MULTIPLE) * WHOLE_MULTIPLE
        padding.append((WHOLE_MARGIN, padded - size - WHOLE_MARGIN))
    kernel = (shape[0] + sum(padding[0]), shape[1] + sum(padding[1]))
    start = np.zeros(1, int)
    weight = np.ones(kernel, np.float32)
    return _plan(shape, kernel, (padding[0], padding[1]), (start, start), weight)


def plan_tiles(shape: Pair, *, kernel: int) -> WindowPlan:
    """The fewest windows in which every pixel lies an eighth of a window from an edge.

    For networks whose attention or pooling spans the window. What lies nearer to an edge does not
    count; the slice is mirrored by as much, so that its own edges have neighbours.
    """
    edge = kernel // EDGE_SHARE
    inner = kernel - 2 * edge
    padding, starts = [], []
    for size in shape:
        count = -(-size // inner)
        # Spread evenly, so that windows overlap rather than reach far beyond the slice.
        length = max(size, inner)
        first = np.round(np.linspace(0, length - inner, count)).astype(int)
        starts.append(first)
        before = edge + (length - size) // 2
        padding.append((before, length + 2 * edge - size - before))
    weight = np.zeros((kernel, kernel), np.float32)
    weight[edge : kernel - edge, edge : kernel - edge] = 1
    return _plan(shape, (kernel, kernel), (padding[0], padding[1]), (starts[0], starts[1]), weight)
