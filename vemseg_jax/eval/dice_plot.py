"""The plot of the Dice of every slice along z."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vemseg_jax.eval.report import ALL, TEST, TRAIN, VALIDATION, ScoreRow, SliceScore, number

# Okabe and Ito's colours, told apart by readers with any of the usual colour deficiencies.
ROLE_COLOURS = {TEST: "#0072B2", TRAIN: "#D55E00", VALIDATION: "#AA3377"}
ROLE_MARKERS = {TRAIN: "s", VALIDATION: "^"}
ROLE_STYLES: dict[str, Any] = {TRAIN: "-", VALIDATION: (0, (4, 2))}
PLOT_DPI = 160
PLOT_WIDTH_INCH = 9.0
PANEL_HEIGHT_INCH = 2.5


def plot_dice_per_slice(
    path: Path,
    panels: Mapping[str, Sequence[SliceScore]],
    *,
    rows: Sequence[ScoreRow] = (),
    z_size: float | None = None,
) -> None:
    """Draws the Dice of every compared slice along z, one panel a structure.

    Test slices are joined by a line that breaks at slices without structure. Training and
    validation slices are marked by vertical lines and by markers of their own.

    Args:
      path: the PNG file.
      panels: title -> slices in ascending z.
      rows: scores whose `title` is that of a panel: "all" goes in the panel's heading, each
        z range is shaded and labelled.
      z_size: distance between slices in nm, for a second axis in micrometres.
    """
    figure = Figure(
        figsize=(PLOT_WIDTH_INCH, 1.0 + PANEL_HEIGHT_INCH * len(panels)),
        dpi=PLOT_DPI,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, slices) in zip(axes, panels.items(), strict=True):
        _draw_panel(ax, slices)
        _label_panel(ax, title, [row for row in rows if row.title == title])
    axes[-1].set_xlabel("slice z")
    if z_size:
        top = axes[0].secondary_xaxis(
            "top", functions=(lambda z: z * z_size / 1000, lambda um: um * 1000 / z_size)
        )
        top.set_xlabel("depth (µm)")
    roles = {one.role for slices in panels.values() for one in slices}
    figure.legend(handles=_legend(roles), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path)


def _draw_panel(ax: Axes, slices: Sequence[SliceScore]) -> None:
    test = [s.counts for s in slices if s.role == TEST]
    size = 3.0 if len(test) <= 250 else 1.2
    ax.plot(
        [c.z for c in test],
        [c.dice_2d for c in test],
        color=ROLE_COLOURS[TEST],
        linewidth=1.1,
        marker="o",
        markersize=size,
        zorder=3,
    )
    for role in (VALIDATION, TRAIN):
        chosen = [s.counts for s in slices if s.role == role]
        for c in chosen:
            ax.axvline(
                c.z,
                color=ROLE_COLOURS[role],
                linestyle=ROLE_STYLES[role],
                linewidth=0.8,
                alpha=0.6,
                zorder=1,
            )
        ax.plot(
            [c.z for c in chosen],
            [c.dice_2d for c in chosen],
            linestyle="none",
            marker=ROLE_MARKERS[role],
            markersize=5,
            markerfacecolor="white",
            markeredgecolor=ROLE_COLOURS[role],
            markeredgewidth=1.2,
            zorder=4,
        )
    ax.set_ylim(0, 1.04)
    ax.set_ylabel("Dice of the slice")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines["right"].set_visible(False)
    zs = [s.counts.z for s in slices]
    margin = max(1.0, 0.015 * (max(zs) - min(zs))) if zs else 1.0
    if zs:
        ax.set_xlim(min(zs) - margin, max(zs) + margin)


def _label_panel(ax: Axes, title: str, rows: Sequence[ScoreRow]) -> None:
    heading = title
    shade = 0
    for row in rows:
        if row.z_range == ALL:
            heading += (
                f": 3D Dice {number(row.score.dice_3d, 3)}, average 2D Dice "
                f"{number(row.score.average_dice_2d, 3)}; {row.score.slices} test slices, "
                f"{row.score.structure_slices} with structure"
            )
            continue
        start, stop = (int(part) for part in row.z_range.split(":"))
        colour = ("#E8EEF4", "#F6F0E2")[shade % 2]
        ax.axvspan(start - 0.5, stop - 0.5, color=colour, linewidth=0, zorder=0)
        low, high = ax.get_xlim()
        ax.text(
            (max(start - 0.5, low) + min(stop - 0.5, high)) / 2,
            0.03,
            f"z {start} to {stop - 1}\n3D Dice {number(row.score.dice_3d, 3)}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8,
            color="0.25",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
            zorder=5,
        )
        shade += 1
    ax.set_title(heading, loc="left", fontsize=10)


def _legend(roles: set[str]) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=ROLE_COLOURS[TEST], linewidth=1.1, marker="o", markersize=3,
            label="test slice (scored)",
        )
    ]  # fmt: skip
    names = {TRAIN: "training slice (left out)", VALIDATION: "validation slice (left out)"}
    for role, name in names.items():
        if role in roles:
            handles.append(
                Line2D(
                    [],
                    [],
                    color=ROLE_COLOURS[role],
                    linestyle=ROLE_STYLES[role],
                    linewidth=0.8,
                    marker=ROLE_MARKERS[role],
                    markersize=5,
                    markerfacecolor="white",
                    label=name,
                )
            )
    return handles
