"""Scores the predicted labels of a volume against its annotations."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import vemseg_jax
from vemseg_jax.data.store.atomic import AtomicDirectory
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import FULL, IGNORE, TRAINING, Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.eval import report
from vemseg_jax.eval.comparison import Comparison, check_slices, compare, has_level, listed
from vemseg_jax.eval.dice_plot import plot_dice_per_slice
from vemseg_jax.eval.folder import FORMAT, check_output
from vemseg_jax.eval.metrics import count_slice
from vemseg_jax.eval.overlay import Outline, Panel, draw_overlay
from vemseg_jax.eval.report import TEST, TRAIN, VALIDATION, ScoreRow, SliceScore
from vemseg_jax.progress import track


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found and where it wrote it; `text` is the table with its notes."""

    output: Path
    rows: tuple[ScoreRow, ...]
    slices: dict[str, tuple[SliceScore, ...]]
    notes: tuple[str, ...]
    text: str


def evaluate(
    volume_path: str | os.PathLike[str],
    *,
    predictions: Sequence[str] | None = None,
    truth: Mapping[str, str] | None = None,
    z_ranges: Sequence[tuple[int, int]] = (),
    exclude: Sequence[int] | None = None,
    level: str | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    overlay_slices: Sequence[int] | None = None,
) -> Evaluation:
    """Compares predictions with annotations slice by slice and writes a folder of results.

    A slice is scored when the truth has it labelled, the prediction covers it, and it was used
    neither for training nor for validation. Pixels of the ignore mask and unlabelled pixels are
    in no count. A few slices are in memory at a time.

    The folder: `summary.md`, `summary.json`, `per_slice_STRUCTURE.csv`, `dice_per_slice.png` and
    `overlay_STRUCTURE.png`. It appears whole or not at all.

    Args:
      volume_path: an OME-Zarr volume with predicted labels.
      predictions: names of predicted labels; None takes all.
      truth: structure -> label to compare with; by default the label named as the structure.
      z_ranges: half-open ranges of slices that get rows of their own beside "all".
      exclude: slices left out as training slices instead of those the prediction records.
      level: "training" or "full"; None takes the training scale when both labels have it.
      output: the folder; by default NAME-evaluation beside the volume.
      overwrite: replaces the folder if it holds an earlier evaluation.
      overlay_slices: slices to draw; by default the worst, the median and the best.

    Raises:
      InputError: no prediction, no truth, nothing left to score, shapes that differ, ranges
        outside the volume, an output that exists.
    """
    volume = open_volume(volume_path)
    folder = check_output(volume, output, overwrite=overwrite)
    check_slices(volume, z_ranges=z_ranges, exclude=exclude, overlay_slices=overlay_slices)
    comparisons = compare(
        volume, predictions=predictions, truth=truth or {}, exclude=exclude, level=level
    )
    directory = AtomicDirectory(folder, partial=folder.with_name(folder.name + ".partial"))
    try:
        result = _score(volume, comparisons, z_ranges=z_ranges, output=folder)
        _write(directory.partial, volume, comparisons, result=result, drawn=overlay_slices)
    except BaseException:
        directory.abandon()
        raise
    directory.commit()
    return result


def _score(
    volume: Volume,
    comparisons: Sequence[Comparison],
    *,
    z_ranges: Sequence[tuple[int, int]],
    output: Path,
) -> Evaluation:
    slices: dict[str, tuple[SliceScore, ...]] = {}
    rows: list[ScoreRow] = []
    for comparison in comparisons:
        scored = tuple(_count(volume, comparison))
        slices[comparison.title] = scored
        rows += _rows(comparison, scored, z_ranges)
    notes = tuple(_notes(volume, comparisons, slices, rows))
    table = report.render_table(report.score_cells(rows))
    text = "\n".join([table, "", report.legend_text(rows), *notes])
    return Evaluation(output=output, rows=tuple(rows), slices=slices, notes=notes, text=text)


def _write(
    folder: Path,
    volume: Volume,
    comparisons: Sequence[Comparison],
    *,
    result: Evaluation,
    drawn: Sequence[int] | None,
) -> None:
    _write_tables(folder, volume, comparisons, result=result)
    plot_dice_per_slice(
        folder / "dice_per_slice.png", result.slices, rows=result.rows, z_size=volume.voxel_size[0]
    )
    for number, comparison in enumerate(comparisons):
        chosen = _chosen(result.slices[comparison.title], drawn)
        _write_overlay(folder, volume, comparison, chosen=chosen, colours=number)


def _count(volume: Volume, comparison: Comparison) -> Iterator[SliceScore]:
    names = [comparison.truth, comparison.prediction, *([IGNORE] if volume.has_ignore else [])]
    arrays = [volume.label(name, comparison.level) for name in names]
    zs = list(comparison.roles)
    planes = track(
        read_slices(arrays, zs), total=len(zs), what=f"scoring {comparison.title}", unit="slice"
    )
    for z, (truth, prediction, *ignore) in planes:
        valid = ignore[0] == 0 if ignore else None
        try:
            counts = count_slice(truth, prediction, valid=valid, z=z)
        except ValueError as error:
            raise InputError(
                f"{volume.path}: slice {z} of {comparison.prediction!r} against "
                f"{comparison.truth!r}: {error}"
            ) from error
        # A slice of which nothing is counted is not a slice without structure.
        if counts.pixels:
            yield SliceScore(
                name=volume.slice_names[z],
                role=comparison.roles[z],
                counts=counts,
                seen=z in comparison.seen,
            )


def _rows(
    comparison: Comparison, slices: Sequence[SliceScore], z_ranges: Sequence[tuple[int, int]]
) -> list[ScoreRow]:
    return [
        report.score_row(
            slices,
            title=comparison.title,
            structure=comparison.structure,
            prediction=comparison.prediction,
            truth=comparison.truth,
            z_range=z_range,
        )
        for z_range in (None, *z_ranges)
    ]


def _notes(
    volume: Volume,
    comparisons: Sequence[Comparison],
    slices: Mapping[str, Sequence[SliceScore]],
    rows: Sequence[ScoreRow],
) -> Iterator[str]:
    for comparison in comparisons:
        compared = slices[comparison.title]
        train, validation = (
            [s.counts.z for s in compared if s.role == role] for role in (TRAIN, VALIDATION)
        )
        yield (
            f"{comparison.title}: {comparison.prediction!r} against {comparison.truth!r} at "
            f"{comparison.level} scale, left out of every score: training slices "
            f"{listed(train)}; validation slices {listed(validation)}."
        )
        total = next(row for row in rows if row.title == comparison.title)
        if total.seen_unlabelled:
            yield (
                f"{comparison.title}: semi-supervised: of the {total.score.slices} scored slices "
                f"{total.seen_unlabelled} were seen in training, as images without their labels. "
                "To score slices that were not seen at all, hold their images out of training "
                "with --config.data.z_range=FIRST,END."
            )
        if volume.has_ignore:
            h, w = volume.plane_shape(comparison.level)
            score = total.score
            share = 100 * (1 - score.pixels / (score.slices * h * w)) if score.slices else 0.0
            yield (
                f"{comparison.title}: the ignore mask and unlabelled pixels, left out of every "
                f"score, are {share:.2f} % of the scored slices."
            )
        dropped = len(comparison.roles) - len(compared)
        if dropped:
            yield f"{comparison.title}: slices without a pixel that counts, left out: {dropped}."
        yield from (f"{comparison.title}: {note}" for note in comparison.notes)


def _write_tables(
    folder: Path,
    volume: Volume,
    comparisons: Sequence[Comparison],
    *,
    result: Evaluation,
) -> None:
    rows, slices, notes = result.rows, result.slices, result.notes
    for title, scored in slices.items():
        report.write_slice_csv(folder / f"per_slice_{title}.csv", scored)
    summary = {
        "format": FORMAT,
        "version": vemseg_jax.__version__,
        "volume": str(volume.path),
        "voxel_size_nm": list(volume.voxel_size),
        "levels": {c.title: c.level for c in comparisons},
        "ignore_mask": bool(volume.has_ignore),
        "scores": [report.row_record(row) for row in rows],
        "notes": list(notes),
    }
    (folder / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    parts = [
        f"# Evaluation of {volume.path.name}",
        report.render_table(report.score_cells(rows)),
        report.legend_text(rows).replace("\n", "  \n"),
        report.render_table(report.voxel_cells(rows)),
        "\n".join(f"- {note}" for note in notes),
        "![Dice of every slice](dice_per_slice.png)",
        *(f"![Outlines of {title}](overlay_{title}.png)" for title in slices),
    ]
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _chosen(slices: Sequence[SliceScore], wanted: Sequence[int] | None) -> list[tuple[int, str]]:
    by_z = {s.counts.z: s for s in slices}
    if wanted:
        return [(z, _slice_title(z, by_z.get(z), "")) for z in wanted]
    test = [s for s in slices if s.role == TEST]
    ranked = sorted((s for s in test if s.counts.has_structure), key=lambda s: s.counts.dice_2d)
    if not ranked:
        # Nothing to rank by: show where most was predicted although nothing is there.
        most = max(test or slices, key=lambda s: s.counts.predicted)
        return [(most.counts.z, _slice_title(most.counts.z, most, ""))]
    places = {0: "worst", len(ranked) // 2: "median", len(ranked) - 1: "best"}
    return [
        (ranked[i].counts.z, _slice_title(ranked[i].counts.z, ranked[i], name))
        for i, name in sorted(places.items())
    ]


def _slice_title(z: int, one: SliceScore | None, place: str) -> str:
    if one is None:
        return f"z = {z}, not compared"
    dice = f"Dice {one.counts.dice_2d:.3f}" if one.counts.has_structure else "no structure"
    role = {TRAIN: "training slice", VALIDATION: "validation slice", TEST: ""}[one.role]
    return ", ".join(part for part in (f"z = {z}", dice, place, role) if part)


def _write_overlay(
    folder: Path,
    volume: Volume,
    comparison: Comparison,
    *,
    chosen: Sequence[tuple[int, str]],
    colours: int,
) -> None:
    names = [comparison.truth, comparison.prediction, *([IGNORE] if volume.has_ignore else [])]
    level = TRAINING if all(has_level(volume, name, TRAINING) for name in names) else FULL
    arrays = [volume.image(level), *(volume.label(name, level) for name in names)]
    panels = []
    for (_, planes), (_, title) in zip(
        read_slices(arrays, [z for z, _ in chosen]), chosen, strict=True
    ):
        image, truth, prediction, *ignore = planes
        outline = Outline(comparison.structure, truth == 1, prediction == 1, colours=colours)
        ignored = ignore[0] != 0 if ignore else None
        panels.append(Panel(image=image, title=title, outlines=[outline], ignored=ignored))
    step = volume.downsample if level == TRAINING else 1
    pixel_size = (volume.voxel_size[1] * step, volume.voxel_size[2] * step)
    draw_overlay(folder / f"overlay_{comparison.title}.png", panels, pixel_size=pixel_size)
