"""Tables and CSV files of scores."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vemseg_jax.eval.metrics import DiceAccumulator, SliceCounts, accumulate

TRAIN, VALIDATION, TEST = "train", "validation", "test"
ALL = "all"


@dataclasses.dataclass(frozen=True)
class SliceScore:
    """One compared slice: its name, its role (train, validation or test) and its counts.

    `seen` says that its image took part in semi-supervised training, without its label.
    """

    name: str
    role: str
    counts: SliceCounts
    seen: bool = False


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """The scores of one prediction over one range of slices; only test slices are scored.

    `seen_unlabelled` counts those of them whose images took part in semi-supervised training.
    """

    title: str
    structure: str
    prediction: str
    truth: str
    z_range: str
    excluded_training: int
    excluded_validation: int
    score: DiceAccumulator
    seen_unlabelled: int = 0


def score_row(
    slices: Sequence[SliceScore],
    *,
    title: str,
    structure: str,
    prediction: str,
    truth: str,
    z_range: tuple[int, int] | None = None,
) -> ScoreRow:
    """Pools the test slices of a half-open `z_range` (None: all); counts the others."""
    inside = [s for s in slices if z_range is None or z_range[0] <= s.counts.z < z_range[1]]
    return ScoreRow(
        title=title,
        structure=structure,
        prediction=prediction,
        truth=truth,
        z_range=ALL if z_range is None else f"{z_range[0]}:{z_range[1]}",
        excluded_training=sum(s.role == TRAIN for s in inside),
        excluded_validation=sum(s.role == VALIDATION for s in inside),
        score=accumulate(s.counts for s in inside if s.role == TEST),
        seen_unlabelled=sum(s.role == TEST and s.seen for s in inside),
    )


def number(value: float, digits: int = 4) -> str:
    """A fixed number of decimals; "-" for nan."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def render_table(rows: Sequence[Mapping[str, str]], *, left: int = 2) -> str:
    """A Markdown table that is also aligned as plain text.

    Args:
      rows: column title -> cell, the same titles in every row.
      left: how many columns, the first ones, are set flush left; the others, numbers, flush right.
    """
    if not rows:
        return ""
    titles = list(rows[0])
    widths = [max(len(t), 3, *(len(row[t]) for row in rows)) for t in titles]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(titles), line(rule), *(line([row[t] for t in titles]) for row in rows)])


def _differs(row: ScoreRow) -> bool:
    return row.score.predicted != row.score.predicted_in_structure_slices


def score_cells(rows: Sequence[ScoreRow]) -> list[dict[str, str]]:
    """The cells of the table of scores.

    The 3D Dice over slices with structure only has a column when it differs in some row, and a
    number in the rows where it does.
    """
    some_differ = any(_differs(row) for row in rows)
    table = []
    for row in rows:
        score = row.score
        cells = {"structure": row.title, "z": row.z_range, "slices": str(score.slices)}
        cells["with structure"] = str(score.structure_slices)
        cells["3D Dice"] = number(score.dice_3d)
        if some_differ:
            cells["3D Dice*"] = number(
                score.dice_3d_structure_slices if _differs(row) else math.nan
            )
        cells["average 2D Dice"] = number(score.average_dice_2d)
        cells["precision"] = number(score.precision)
        cells["recall"] = number(score.recall)
        table.append(cells)
    return table


def voxel_cells(rows: Sequence[ScoreRow]) -> list[dict[str, str]]:
    """The cells of the table of voxel counts and of slices left out."""
    return [
        {
            "structure": row.title,
            "z": row.z_range,
            "truth voxels": f"{row.score.truth:,}",
            "predicted voxels": f"{row.score.predicted:,}",
            "common voxels": f"{row.score.common:,}",
            "training slices left out": str(row.excluded_training),
            "validation slices left out": str(row.excluded_validation),
        }
        for row in rows
    ]


def legend_text(rows: Sequence[ScoreRow]) -> str:
    """What the columns of `score_cells` mean, one line each."""
    lines = [
        "3D Dice = 2 common / (truth + predicted), voxels pooled over all scored slices.",
        "Average 2D Dice = mean of (2 common + 1) / (truth + predicted + 1) over the slices whose "
        "truth holds structure.",
    ]
    if any(_differs(row) for row in rows):
        lines.insert(
            1,
            "3D Dice* = the same over slices whose truth holds structure only; it does not see "
            "what is predicted where there is none.",
        )
    return "\n".join(lines)


def row_record(row: ScoreRow) -> dict[str, object]:
    """A row as JSON values; a score without a value is None."""

    def value(number: float) -> float | None:
        return None if math.isnan(number) else number

    score = row.score
    return {
        "structure": row.structure,
        "prediction": row.prediction,
        "truth": row.truth,
        "z_range": row.z_range,
        "slices_scored": score.slices,
        "slices_with_structure": score.structure_slices,
        "scored_slices_seen_without_label": row.seen_unlabelled,
        "excluded_training_slices": row.excluded_training,
        "excluded_validation_slices": row.excluded_validation,
        "dice_3d": value(score.dice_3d),
        "dice_3d_structure_slices": value(score.dice_3d_structure_slices),
        "average_dice_2d": value(score.average_dice_2d),
        "precision": value(score.precision),
        "recall": value(score.recall),
        "truth_voxels": score.truth,
        "predicted_voxels": score.predicted,
        "common_voxels": score.common,
        "scored_voxels": score.pixels,
    }


def write_slice_csv(path: Path, slices: Sequence[SliceScore]) -> None:
    """One line a compared slice; `dice_2d` is empty where the truth holds no structure."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["z", "slice", "role", "truth_voxels", "predicted_voxels", "common_voxels", "dice_2d"]
        )
        for one in slices:
            c = one.counts
            dice = f"{c.dice_2d:.6f}" if c.has_structure else ""
            writer.writerow([c.z, one.name, one.role, c.truth, c.predicted, c.common, dice])
