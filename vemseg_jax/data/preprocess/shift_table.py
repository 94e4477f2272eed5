"""The shifts of a stack as a table and a plot."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

CSV_NAME, PLOT_NAME = "shifts.csv", "shifts.png"
# Okabe and Ito's colours, told apart by readers with any of the usual colour deficiencies.
COLOURS = {"dy": "#0072B2", "dx": "#D55E00"}
FLAG_COLOUR = "#CC79A7"


class SliceShift(NamedTuple):
    """How one slice was moved, in full-resolution pixels.

    Attributes:
      z, name: the slice.
      dy, dx: the shift applied: the slice moves down and right by it.
      measured_dy, measured_dx: the same as measured, before rounding.
      quality: best correlation with earlier slices, 0-1.
      flag: why it could not be measured, empty where it could.
    """

    z: int
    name: str
    dy: float
    dx: float
    measured_dy: float
    measured_dx: float
    quality: float
    flag: str


def write_shifts(path: Path, shifts: Sequence[SliceShift]) -> None:
    """Writes the shifts as CSV, one row a slice."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SliceShift._fields)
        for s in shifts:
            numbers = [f"{value:.10g}" for value in (s.dy, s.dx)]
            numbers += [f"{value:.3f}" for value in (s.measured_dy, s.measured_dx, s.quality)]
            writer.writerow([s.z, s.name, *numbers, s.flag])


def plot_shifts(path: Path, shifts: Sequence[SliceShift]) -> None:
    """Draws shift and correlation of every slice along z; flagged slices are marked."""
    figure = Figure(figsize=(9.0, 5.5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    zs = [s.z for s in shifts]
    for field, colour in COLOURS.items():
        measured = [getattr(s, f"measured_{field}") for s in shifts]
        top.plot(zs, measured, color=colour, linewidth=0.8, alpha=0.6)
        applied = [getattr(s, field) for s in shifts]
        top.plot(zs, applied, color=colour, linewidth=1.1, drawstyle="steps-mid", label=field)
    quality = [s.quality for s in shifts]
    bottom.plot(zs, quality, color="0.35", linewidth=0.9)
    flagged = [s for s in shifts if s.flag]
    for number, s in enumerate(flagged):
        label = f"flagged ({len(flagged)})" if number == 0 else None
        top.axvline(s.z, color=FLAG_COLOUR, linewidth=0.8, alpha=0.7, zorder=0, label=label)
        bottom.axvline(s.z, color=FLAG_COLOUR, linewidth=0.8, alpha=0.7, zorder=0)
    top.set_ylabel("shift (pixels)")
    top.set_title("Shift of every slice; thin lines as measured", loc="left", fontsize=10)
    top.legend(frameon=False, ncols=3, fontsize=9)
    bottom.set_ylabel("correlation")
    bottom.set_ylim(0, 1.04)
    bottom.set_xlabel("slice z")
    for ax in (top, bottom):
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path)
