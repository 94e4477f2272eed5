"""The report of a study: Markdown, CSV files and one HTML page."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vemseg_jax.config import is_pair
from vemseg_jax.data.store.atomic import AtomicDirectory, lock, unlock
from vemseg_jax.data.store.lineage import Relation
from vemseg_jax.errors import InputError
from vemseg_jax.measure.measure import measure
from vemseg_jax.measure.options import Options
from vemseg_jax.progress import clock
from vemseg_jax.study import claims, figures, tables
from vemseg_jax.study.blocks import (
    Block,
    Heading,
    Picture,
    Table,
    Text,
    paragraph,
    to_html,
    to_markdown,
)
from vemseg_jax.study.design import (
    Method,
    Study,
    StudyVolume,
    related_volumes,
    schedule,
    scored_slices,
    training_slices,
)
from vemseg_jax.study.run import Outcome

REPORT, RENDERED = "report", "rendered"
# Of a result, what made it, and how that is said.
_MADE_BY = {"python": "Python", "vemseg_jax": "vemseg_jax", "date": "on"}


def write_report(study: Study, outcomes: Sequence[Outcome], output: Path, *, command: str) -> Path:
    """Writes `report/` into the folder of a study, in the place of an earlier one.

    Args:
      study: what was compared.
      outcomes: of every run.
      output: folder of the study.
      command: what makes it, for the reader.

    Returns:
      The HTML page; beside it `README.md`, `*.csv` and `*.png`.
    """
    taken = lock(output, wait=True)  # several processes of a study may end at once
    try:
        return _write_report(study, outcomes, output, command)
    finally:
        unlock(taken)


def _write_report(study: Study, outcomes: Sequence[Outcome], output: Path, command: str) -> Path:
    folder = output / REPORT
    directory = AtomicDirectory(folder, partial=output / f"{REPORT}.partial")
    try:
        blocks = _blocks(study, outcomes, output, directory.partial, command)
        for block in blocks:
            if isinstance(block, Table):
                _write_csv(directory.partial / f"{block.name}.csv", block)
        _write_csv(directory.partial / "runs.csv", tables.cells_table(outcomes))
        markdown = to_markdown(blocks, directory.partial)
        (directory.partial / "README.md").write_text(markdown, encoding="utf-8")
        page = to_html(blocks, title=f"vemseg study: {study.name}")
        (directory.partial / "report.html").write_text(page, encoding="utf-8")
    except BaseException:
        directory.abandon()
        raise
    directory.commit()
    return folder / "report.html"


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(table.rows[0]) if table.rows else [], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(table.rows)


def _blocks(
    study: Study, outcomes: Sequence[Outcome], output: Path, folder: Path, command: str
) -> list[Block]:
    structures = list(dict.fromkeys(s for v in study.volumes for s in v.structures))
    blocks: list[Block] = [
        Heading(f"Study: {study.name}", 1),
        paragraph(f"Made by `{command}`."),
        _state(outcomes),
        Heading("How the numbers were made"),
        Text(tuple(_conditions(study, outcomes)), is_list=True),
        Heading("Claims of the paper"),
        Text(tuple(claim.sentence() for claim in claims.claims(study, outcomes)), is_list=True),
        paragraph(
            "Differences are paired: same volume, structure, budget and seed. A claim shows where"
            " the 95 % interval (Student's t over the means of the volumes) lies above 0; its"
            " opposite shows where it lies below. Pairs of one volume share its slices and are no"
            " repetitions, so that fewer than three volumes have no interval. A control is no claim"
            " of the paper's: where more labels do not help, few that do as well say nothing."
        ),
        *_caveats(study),
        Table(
            "stability",
            tuple(claims.stability(study, outcomes)),
            f"Stability between labelled slices: mean Dice of the scored slices that are near to "
            f"and far from a labelled one (halves by distance), {min(study.budgets)} slices",
            left=1,
        ),
        Heading("Mean, standard deviation and rank (table 2)"),
        tables.summary_table(study, outcomes),
    ]
    blocks.append(Heading("Average 2D Dice (tables 3 and 4)"))
    blocks += [tables.dice_table(study, outcomes, each, "average_dice_2d") for each in structures]
    blocks.append(Heading("3D Dice (tables 5 and 6)"))
    for each in structures:
        blocks.append(tables.dice_table(study, outcomes, each, "dice_3d"))
        if tables.counts_differ(outcomes, each):
            blocks.append(tables.dice_table(study, outcomes, each, "dice_3d_structure_slices"))
    across = tables.across_table(study, outcomes)
    if across is not None:
        blocks += [Heading("Trained on other volumes (section 3.2)"), across]
    blocks += [Heading("Parameters and time (table 1)"), tables.time_table(study, outcomes)]
    blocks += _figures(study, outcomes, output, folder)
    return blocks


def _caveats(study: Study) -> list[Text]:
    one_seed = "With one seed, how far a score varies from seed to seed is not known here."
    said = [study.note, one_seed if len(study.seeds) == 1 else ""]
    return [paragraph(*(text for text in said if text))] if any(said) else []


def _state(outcomes: Sequence[Outcome]) -> Text:
    failed = [o for o in outcomes if o.failed]
    missing = sum(o.result is None and o.failed is None for o in outcomes)
    text = f"{len(outcomes)} runs: {len(outcomes) - len(failed) - missing} done, "
    text += f"{len(failed)} failed, {missing} not run."
    lines = [text, *(f"Failed: {o.cell.key}: {o.failed}" for o in failed)]
    return Text(tuple(lines), is_list=len(lines) > 1)


def _conditions(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    lines = []
    for volume in study.volumes:
        scored = scored_slices(study, volume)
        per = ", ".join(f"{b}: {list(training_slices(volume, b))}" for b in study.budgets)
        lines.append(
            f"{volume.name} ({', '.join(volume.structures)}): every run is scored on the same "
            f"{len(scored)} slices, whose labels no budget trains on: {list(scored)}. "
            f"Labelled slices by budget: {per}."
        )
        lines += [volume.note] if volume.note else []
    lines += [_recipe(study, method) for method in study.methods]
    if any(is_pair(method.config) for method in study.methods):
        lines.append(
            "Semi-supervised: half of a batch are labelled crops; the other half come from all "
            "other slices of the training volume, without their labels. The slices that are scored "
            "are among them: their images were seen in training, which those of a supervised run "
            "were not. Runs trained on other volumes have not seen them. The first of the two "
            "networks predicts."
        )
    for one, other, found in _related(study):
        lines.append(
            f"{one.name} and {other.name} {'' if found.same else 'may '}show the same slices "
            f"({found.text}): they are no independent repetitions of each other."
        )
    lines.append(
        "Grey values of each volume are normalised by its own mean and deviation, in training and "
        "in prediction."
    )
    passes = {
        "window": "in the paper's sliding window (overlapping by three quarters, averaged)",
        "whole": "in one pass, or in the fewest windows where a network needs its crop's size",
    }
    lines.append(f"Slices are predicted at training scale {passes[study.prediction]}.")
    lines.append(
        "Structures of a volume are learned "
        + ("together by one network." if study.joint else "by a network each.")
        + f" Seeds: {list(study.seeds)}. Ignored pixels, where a volume has any, are in no loss "
        "and no score."
    )
    lines.append(
        "3D Dice: twice the voxels in both annotation and prediction over the sum of the voxels"
        " in each, all scored slices pooled. The paper pools only slices that hold the structure,"
        " which has a table of its own where it differs. Dice of a slice: (2 common + 1) / (truth +"
        " predicted + 1) in pixels, the reference's smoothing, which puts an empty prediction of a"
        " small structure a little above 0. Average 2D Dice: its mean over scored slices that hold"
        " the structure."
    )
    results = [o.result for o in outcomes if o.result]
    machines = sorted({_machine(result) for result in results}) or ["nothing has run"]
    lines.append(f"On {'; '.join(machines)}. Times are those of a machine that others may share.")
    training, predicting = (
        clock(sum(result[f"{what}_seconds"] for result in results))
        for what in ("training", "prediction")
    )
    lines.append(f"All runs together took {training} of training and {predicting} of prediction.")
    return lines


def _related(study: Study) -> list[tuple[StudyVolume, StudyVolume, Relation]]:
    try:
        return list(related_volumes(study))
    except InputError:  # a volume that was removed since takes no report with it
        return []


def _machine(result: Mapping[str, Any]) -> str:
    """Where and by what a run was made."""
    text = f"{result['device']}, {result['cores']} cores, jax {result['jax']}"
    known = [f"{title} {result[key]}" for key, title in _MADE_BY.items() if key in result]
    return ", ".join([text, *known])


def _recipe(study: Study, method: Method) -> str:
    """How a method trains, and where that departs from its configuration."""
    config = method.config
    rate, kind = config.optimizer.learning_rate, schedule(config)
    text = (
        f"{method.name}: {config.train.steps:,} steps of {config.train.batch_size} crops of "
        f"{config.data.crop_size} pixels at training scale, {config.loss.name}, "
        f"{config.optimizer.name} at {rate:g} ({kind}), {config.train.precision}"
    )
    if study.steps_for:
        text += f", for {study.steps_for} labelled slices and in proportion for others"
    if is_pair(config):
        text += f", {config.cps.method}"
        if study.ramp_end:
            start, end = (round(config.train.steps * study.ramp_end / n) for n in (4, 1))
            text += f" with the cross loss rising over steps {start} to {end}"
    if kind != config.optimizer.schedule:
        text += (
            f"; in the place of {config.optimizer.schedule}, which takes held-out labels that the "
            "budget does not have"
        )
        if config.loss.name == "fractal_tanimoto":
            text += f", so that the loss keeps its depth of {config.loss.depth}"
    return f"{text}; the weights of the last step."


def _figures(study: Study, outcomes: Sequence[Outcome], output: Path, folder: Path) -> list[Block]:
    blocks: list[Block] = []
    if figures.plot_along(study, outcomes, folder / "dice_along.png"):
        blocks.append(Heading("Dice along the volume (figure 5)"))
        blocks.append(Picture(folder / "dice_along.png", "Dice of every slice, all methods"))
    worst: list[Block] = []
    for volume in study.volumes:
        for structure in volume.structures:
            path = folder / f"worst_{volume.name}_{structure}.png"
            what = f"{volume.name}, {structure}"
            try:
                z = figures.draw_worst(study, outcomes, volume, structure, path)
            except InputError as error:  # a prediction that was removed takes no table with it
                worst.append(paragraph(f"{what}: not drawn: {error}."))
                continue
            if z is not None:
                lacking = figures.absent(study, outcomes, volume, structure)
                worst.append(Picture(path, f"{what}: slice {z}{lacking}"))
    if worst:
        blocks += [Heading("The worst slice of each volume, method by method (figure 4)"), *worst]
    return blocks + _rendering(study, outcomes, output, folder)


def _rendering(
    study: Study, outcomes: Sequence[Outcome], output: Path, folder: Path
) -> list[Block]:
    """Figure 2: nuclei of the first volume's best run in space, with the best run's nucleoli."""
    volume = study.volumes[0]
    best = {s: figures.best_run(outcomes, volume, s) for s in volume.structures}
    found = {structure: run for structure, run in best.items() if run is not None}
    if "nuclei" not in found:
        return []
    labels = {structure: f"{structure}_{run.cell.key}" for structure, run in found.items()}
    target = output / RENDERED / "-".join(run.cell.key for run in found.values())
    heading = Heading("In space (figure 2)")
    if not (target / "rendering.png").exists():
        target.parent.mkdir(exist_ok=True)
        options = Options(nuclei=labels["nuclei"], nucleoli=labels.get("nucleoli"))
        try:
            measure(volume.path, options, output=target, overwrite=True)
        except InputError as error:
            return [heading, paragraph(f"No rendering: {error}.")]
    shutil.copyfile(target / "rendering.png", folder / "rendering.png")
    runs = "; ".join(
        f"{structure}: {run.cell.method}, {run.cell.budget} labelled slices"
        for structure, run in found.items()
    )
    caption = f"{volume.name} as predicted by the runs of the best 3D Dice; {runs}"
    return [heading, Picture(folder / "rendering.png", caption)]
