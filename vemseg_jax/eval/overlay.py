"""Pictures of slices with the outlines of truth and prediction."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

# Truth and prediction of the first, second, ... structure: a light and a saturated
# colour, pairs that readers with any of the usual colour deficiencies tell apart.
PAIRS = (("#56B4E9", "#FF9000"), ("#F0E442", "#E0109C"), ("#30D0A0", "#E04020"))
IGNORED_COLOUR = "#B0B0FF"
DPI = 150
PANEL_PIXELS = 900
COLUMNS = 3
_GAP, _TITLE, _LEGEND_LINE, _LEGEND_ENTRY = 16, 44, 40, 290


@dataclasses.dataclass(frozen=True)
class Outline:
    """The two masks of a structure, `[h, w]` bool, and its place in `PAIRS`."""

    structure: str
    truth: np.ndarray
    prediction: np.ndarray
    colours: int = 0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One slice: `image [h, w]` grey values, what to draw on it, and its heading.

    `ignored [h, w]` bool tints the pixels that no score counts.
    """

    image: np.ndarray
    title: str
    outlines: Sequence[Outline]
    ignored: np.ndarray | None = None


def shrink(plane: np.ndarray, factor: int) -> np.ndarray:
    """Means of `factor` x `factor` blocks of `[h, w]`, float32; a partial last block is cut."""
    h, w = (max(n // factor, 1) for n in plane.shape)
    factor_h, factor_w = (min(factor, n) for n in plane.shape)
    blocks = plane[: h * factor_h, : w * factor_w].reshape(h, factor_h, w, factor_w)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def panel_size(shape: tuple[int, int], *, pixel_size: tuple[float, float]) -> tuple[int, int]:
    """Pixels (h, w) of a drawn slice: its physical shape with the long side `PANEL_PIXELS`."""
    height, width = shape[0] * pixel_size[0], shape[1] * pixel_size[1]
    scale = PANEL_PIXELS / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def figure_size(panels: int, size: tuple[int, int], *, entries: int) -> tuple[int, int]:
    """Pixels (h, w) of the picture with so many panels of that size and entries of the legend."""
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    width = columns * size[1] + (columns + 1) * _GAP
    lines = math.ceil(entries / _legend_columns(width, entries))
    return rows * (size[0] + _TITLE) + (rows - 1) * _GAP + lines * _LEGEND_LINE + _GAP, width


def _legend_columns(width: int, entries: int) -> int:
    return max(1, min(width // _LEGEND_ENTRY, entries))


def scale_bar(width: float) -> float:
    """The round length (1, 2 or 5 times a power of ten) nearest below a quarter of `width`."""
    power = 10 ** math.floor(math.log10(width / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width / 4)


def draw_overlay(path: Path, panels: Sequence[Panel], *, pixel_size: tuple[float, float]) -> None:
    """Writes a PNG of slices side by side, three a row, with a legend and scale bars.

    Args:
      path: the PNG file.
      panels: at least one; images of one shape.
      pixel_size: nm (y, x) of a pixel of the images.
    """
    size = panel_size(panels[0].image.shape, pixel_size=pixel_size)
    handles = _legend(panels)
    height, width = figure_size(len(panels), size, entries=len(handles))
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    columns = min(len(panels), COLUMNS)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        left = _GAP + column * (size[1] + _GAP)
        top = _TITLE + row * (size[0] + _TITLE + _GAP)
        ax = figure.add_axes(
            (left / width, 1 - (top + size[0]) / height, size[1] / width, size[0] / height)
        )
        _draw_panel(ax, panel, pixel_size)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=_legend_columns(width, len(handles)),
        frameon=False,
        fontsize=10,
        borderaxespad=0.3,
    )
    figure.savefig(path)


def _draw_panel(ax: Axes, panel: Panel, pixel_size: tuple[float, float]) -> None:
    h, w = panel.image.shape
    factor = max(1, math.ceil(max(h, w) / PANEL_PIXELS))
    grey = shrink(panel.image, factor)
    low, high = np.percentile(grey, (0.5, 99.5))
    extent = (0, grey.shape[1], grey.shape[0], 0)
    ax.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, aspect="auto")
    if panel.ignored is not None and panel.ignored.any():
        tint = np.zeros((*grey.shape, 4), np.float32)
        tint[..., :3] = [int(IGNORED_COLOUR[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        tint[..., 3] = 0.45 * shrink(panel.ignored, factor)
        ax.imshow(tint, extent=extent, aspect="auto", interpolation="nearest")
    for outline in panel.outlines:
        truth_colour, prediction_colour = PAIRS[outline.colours % len(PAIRS)]
        # The truth is the wider line and lies below: where both agree, both are seen.
        _contour(ax, shrink(outline.truth, factor), truth_colour, 3.8)
        _contour(ax, shrink(outline.prediction, factor), prediction_colour, 1.6)
    ax.set_xlim(0, grey.shape[1])
    ax.set_ylim(grey.shape[0], 0)
    ax.set_axis_off()
    ax.set_title(panel.title, fontsize=11, pad=5)
    _draw_scale_bar(ax, nm_per_unit=pixel_size[1] * factor)


def _contour(ax: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    if mask.max() < 0.5 or min(mask.shape) < 2:
        return
    y, x = (np.arange(n) + 0.5 for n in mask.shape)
    if mask.min() >= 0.5:
        # What fills the slice has no outline in it; the frame says so.
        mask = np.zeros_like(mask)
        mask[1:-1, 1:-1] = 1
    ax.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=[width])


def _draw_scale_bar(ax: Axes, *, nm_per_unit: float) -> None:
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    width, height = right - left, bottom - top
    length = scale_bar(width * nm_per_unit)
    units = length / nm_per_unit
    x, y = left + 0.03 * width, top + 0.955 * height
    ax.add_patch(
        Rectangle(
            (x - 0.012 * width, y - 0.05 * height),
            units + 0.024 * width,
            0.075 * height,
            facecolor="black",
            alpha=0.5,
            linewidth=0,
            zorder=4,
        )
    )
    ax.add_patch(Rectangle((x, y), units, 0.012 * height, facecolor="white", linewidth=0, zorder=5))
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    ax.text(
        x + units / 2,
        y - 0.008 * height,
        text,
        color="white",
        ha="center",
        va="bottom",
        fontsize=10,
        zorder=5,
    )


def _legend(panels: Sequence[Panel]) -> list[Line2D | Patch]:
    handles: dict[str, Line2D | Patch] = {}
    for panel in panels:
        for outline in panel.outlines:
            truth, prediction = PAIRS[outline.colours % len(PAIRS)]
            name = outline.structure
            handles[f"{name}: truth"] = Line2D([], [], color=truth, linewidth=3.8)
            handles[f"{name}: prediction"] = Line2D([], [], color=prediction, linewidth=1.6)
        if panel.ignored is not None and panel.ignored.any():
            handles["ignored"] = Patch(facecolor=IGNORED_COLOUR, alpha=0.8)
    for name, handle in handles.items():
        handle.set_label(name)
    return list(handles.values())
