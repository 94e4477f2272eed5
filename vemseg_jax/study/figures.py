"""The figures of the study: Dice along the volume, worst slices, a rendering."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import IGNORE, TRAINING, open_volume
from vemseg_jax.eval.overlay import Outline, Panel, draw_overlay
from vemseg_jax.study.design import Study, StudyVolume
from vemseg_jax.study.run import Outcome

DPI = 130
# Of lines, where there are more methods than colours.
STYLES = ("-", "--", ":")


def _chosen(
    study: Study, outcomes: Sequence[Outcome], volume: StudyVolume, structure: str, budget: int
) -> list[Outcome]:
    """The finished runs of the first seed on a volume, in the order of the methods."""
    order = [method.name for method in study.methods]
    found = [
        o
        for o in outcomes
        if o.result
        and not o.cell.is_across
        and structure in o.cell.structures
        and (o.cell.volume, o.cell.budget, o.cell.seed) == (volume.name, budget, study.seeds[0])
    ]
    return sorted(found, key=lambda o: order.index(o.cell.method))


def absent(study: Study, outcomes: Sequence[Outcome], volume: StudyVolume, structure: str) -> str:
    """Says which methods the figures lack on a volume; empty where they have all."""
    chosen = _chosen(study, outcomes, volume, structure, min(study.budgets))
    shown = {o.cell.method for o in chosen}
    names = [method.name for method in study.methods if method.name not in shown]
    return f"; failed or not run: {', '.join(names)}" if names else ""


def _pairs(study: Study) -> list[tuple[StudyVolume, str]]:
    return [(volume, structure) for volume in study.volumes for structure in volume.structures]


def _slices(outcome: Outcome, structure: str, *, roles: Sequence[str]) -> dict[int, float]:
    """z -> Dice of the slices with structure."""
    assert outcome.result is not None
    slices = outcome.result["scores"][structure]["slices"]
    return {z: dice for z, role, dice in slices if role in roles and dice is not None}


def plot_along(study: Study, outcomes: Sequence[Outcome], path: Path) -> bool:
    """Figure 5: Dice of every slice along z, all methods, at the smallest budget.

    Returns:
      Whether there was anything to draw.
    """
    budget, pairs = min(study.budgets), _pairs(study)
    figure = Figure(figsize=(10, 2.5 * len(pairs) + 0.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    names = [method.name for method in study.methods]
    drawn = {}
    for ax, (volume, structure) in zip(
        figure.subplots(len(pairs), 1, squeeze=False)[:, 0], pairs, strict=True
    ):
        chosen = _chosen(study, outcomes, volume, structure, budget)
        if not chosen:
            ax.text(0.5, 0.5, "no run has ended", ha="center", transform=ax.transAxes)
        for o in chosen:
            dice = _slices(o, structure, roles=("test", "train", "validation"))
            again, place = divmod(names.index(o.cell.method), len(colours))
            style = {"color": colours[place], "linestyle": STYLES[again % len(STYLES)]}
            (line,) = ax.plot(list(dice), list(dice.values()), linewidth=1.1, **style)
            drawn[o.cell.method] = line
            assert o.result is not None
            for z in o.result["training_slices"]:
                ax.axvline(z, color="0.8", linewidth=0.8, zorder=0)
        ax.set_ylim(0, 1.02)
        title = f"{volume.name}, {structure}, {budget} labelled slices"
        title += absent(study, outcomes, volume, structure)
        ax.set_title(title, loc="left", size=10)
        ax.set_ylabel("Dice of the slice")
    ax.set_xlabel("slice z (grey lines: labelled slices)")
    if drawn:
        handles = [drawn[name] for name in names if name in drawn]
        labels = [name for name in names if name in drawn]
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path)
    return bool(drawn)


def draw_worst(
    study: Study,
    outcomes: Sequence[Outcome],
    volume: StudyVolume,
    structure: str,
    path: Path,
) -> int | None:
    """Figure 4: the scored slice that is worst on average, with each method's outline and Dice.

    Returns:
      z of the slice; None where nothing was scored.
    """
    chosen = _chosen(study, outcomes, volume, structure, min(study.budgets))
    scores = [_slices(o, structure, roles=("test",)) for o in chosen]
    shared = set.intersection(*(set(dice) for dice in scores)) if scores else set()
    if not shared:
        return None
    z = min(sorted(shared), key=lambda z: statistics.mean(dice[z] for dice in scores))
    opened = open_volume(volume.path)
    labels = [f"{structure}_{o.cell.key}" for o in chosen]
    arrays = [opened.image(TRAINING), opened.label(structure, TRAINING)]
    arrays += [opened.label(label, TRAINING) for label in labels]
    if opened.has_ignore:
        arrays.append(opened.label(IGNORE, TRAINING))
    ((_, (image, truth, *predictions)),) = list(read_slices(arrays, [z]))
    ignored = predictions.pop() != 0 if opened.has_ignore else None
    panels = [
        Panel(
            image=image,
            title=f"{o.cell.method}: Dice {dice[z]:.3f}",
            outlines=[Outline(structure, truth == 1, prediction == 1)],
            ignored=ignored,
        )
        for o, dice, prediction in zip(chosen, scores, predictions, strict=True)
    ]
    size = opened.voxel_size[1] * opened.downsample, opened.voxel_size[2] * opened.downsample
    draw_overlay(path, panels, pixel_size=size)
    return z


def best_run(outcomes: Sequence[Outcome], volume: StudyVolume, structure: str) -> Outcome | None:
    """The finished run of a volume with the best 3D Dice of a structure."""
    found = [
        o
        for o in outcomes
        if o.cell.volume == volume.name
        and structure in o.cell.structures
        and not o.cell.is_across
        and o.dice_3d(structure) is not None
    ]
    return max(found, key=lambda o: o.dice_3d(structure) or 0.0, default=None)
