"""The plot of a checked volume: grey values and labels along z."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vemseg_jax.data.check.report import PERCENTILES, LabelFacts, Report
from vemseg_jax.data.store.volume import open_volume

# Okabe and Ito's colours, told apart by readers with any of the usual colour deficiencies.
MEAN_COLOUR, SPREAD_COLOUR, ODD_COLOUR = "#222222", "#56B4E9", "#D55E00"
LABEL_COLOURS = ("#0072B2", "#CC79A7", "#009E73", "#E69F00")
# Findings whose slices are marked among the grey values.
MARKED = {
    "outlier_slices": "stands out",
    "jumps": "jump",
    "missing_slices": "missing",
    "damaged_slices": "damaged",
    "changed_slices": "changed",
    "blank_slices": "blank",
}
DPI = 160
WIDTH_INCH = 9.0


def plot_report(path: Path, report: Report, volume: str | Path) -> None:
    """Draws a PNG: percentiles and mean of the grey values, their spread, and labelled shares.

    Args:
      path: the file to write.
      report: of the volume.
      volume: where its recorded statistics are read.
    """
    opened = open_volume(volume)
    zs = np.arange(*report.z_range)
    mean, std = opened.slice_mean[zs], opened.slice_std[zs]
    panels = 2 + len(report.labels)
    figure = Figure(figsize=(WIDTH_INCH, 1.6 + 1.8 * panels), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [1.5, 0.8, *[0.8 for _ in report.labels]]
    axes = figure.subplots(panels, 1, sharex=True, height_ratios=ratios)
    _grey_values(axes[0], report, zs, mean)
    axes[1].plot(zs, std, color=MEAN_COLOUR, linewidth=1.1)
    axes[1].set_ylabel("standard deviation")
    axes[1].set_ylim(0, 1.15 * max(float(std.max()), 1e-9))
    for i, ax in enumerate(axes[2:]):
        _shares(ax, report.labels[i], LABEL_COLOURS[i % len(LABEL_COLOURS)])
    for ax in axes:
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _labelled_rug(axes[0], report)
    axes[-1].set_xlabel("slice z")
    axes[-1].set_xlim(zs[0] - 0.5, zs[-1] + 0.5)
    size = report.voxel_size[0] / 1000
    top = axes[0].secondary_xaxis("top", functions=(lambda z: z * size, lambda um: um / size))
    top.set_xlabel("depth in µm", fontsize=8)
    top.tick_params(labelsize=8)
    axes[0].set_title(f"{Path(report.path).name}: grey values along z", loc="left", fontsize=10)
    figure.savefig(path)


def _grey_values(ax: Axes, report: Report, zs: np.ndarray, mean: np.ndarray) -> None:
    images = report.images
    if images.checked:
        values, checked = np.array(images.percentiles), np.array(images.checked)
        p = {name: values[:, i] for i, name in enumerate(PERCENTILES)}
        ax.fill_between(
            checked, p[1], p[99], color=SPREAD_COLOUR, alpha=0.18, linewidth=0,
            label="percentiles 1 to 99",
        )  # fmt: skip
        ax.fill_between(
            checked, p[25], p[75], color=SPREAD_COLOUR, alpha=0.4, linewidth=0,
            label="percentiles 25 to 75",
        )  # fmt: skip
        ax.plot(checked, p[50], color="#0072B2", linewidth=0.9, linestyle="--", label="median")
    ax.plot(zs, mean, color=MEAN_COLOUR, linewidth=1.2, label="mean of every slice")
    for finding in report.findings:
        if finding.topic in MARKED:
            inside = [z for z in finding.slices if zs[0] <= z <= zs[-1]]
            heights = mean[np.array(inside, int) - zs[0]]
            ax.plot(
                inside, heights, linestyle="none", marker="o", markersize=6,
                markerfacecolor="none", markeredgecolor=ODD_COLOUR, markeredgewidth=1.4,
                label=MARKED[finding.topic],
            )  # fmt: skip
    ax.set_ylabel("grey value (0-1)")
    low = min(report.images.percentiles, key=lambda row: row[0], default=(0.0,))[0]
    high = max(report.images.percentiles, key=lambda row: row[-1], default=(1.0,))[-1]
    # Values of 12 bit in a type of 16 would all lie at the foot.
    top = 1.0 if high > 0.25 else 2 * max(high, float(mean.max()))
    ax.set_ylim(min(low, float(mean.min())) - 0.12 * top, 1.02 * top)
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False, borderaxespad=0.5
    )


def _labelled_rug(ax: Axes, report: Report) -> None:
    """A row of ticks at the foot of the panel for every structure's labelled slices."""
    for i, label in enumerate(report.labels):
        bottom = 0.015 + 0.04 * i
        ax.vlines(
            label.slices, bottom, bottom + 0.03, transform=ax.get_xaxis_transform(),
            color=LABEL_COLOURS[i % len(LABEL_COLOURS)], linewidth=1.2,
        )  # fmt: skip


def _shares(ax: Axes, label: LabelFacts, colour: str) -> None:
    ax.plot(
        label.slices, 100 * np.array(label.shares), color=colour, linewidth=0.9, marker="o",
        markersize=2.5 if len(label.slices) > 40 else 4,
    )  # fmt: skip
    ax.set_title(f"{label.name}, {len(label.slices)} labelled slices", loc="left", fontsize=9)
    ax.set_ylabel("% of the slice")
    ax.set_ylim(bottom=0)
