"""The tables of the study, from the outcomes of its runs."""

import statistics
from collections.abc import Callable, Sequence

from vemseg_jax.config import is_pair
from vemseg_jax.models import registry
from vemseg_jax.progress import clock
from vemseg_jax.study.blocks import Table
from vemseg_jax.study.design import Study
from vemseg_jax.study.run import Outcome

FAILED, MISSING, UNDEFINED = "failed", "not run", "-"
# By the name of a score in results.
SCORES = {
    "average_dice_2d": "average 2D Dice",
    "dice_3d": "3D Dice",
    "dice_3d_structure_slices": "3D Dice of the slices with structure alone, as the paper counts",
}


def _mean(values: Sequence[float | None], failed: int, missing: int) -> str:
    """Mean of seeds, with their standard deviation; what failed is said, not left out."""
    known = [value for value in values if value is not None]
    if not known:
        return FAILED if failed else MISSING if missing else UNDEFINED
    text = f"{statistics.mean(known):.3f}"
    if len(known) > 1:
        text += f" ± {statistics.stdev(known):.3f}"
    notes = [f"{n} {what}" for n, what in ((failed, FAILED), (missing, MISSING)) if n]
    return f"{text} ({', '.join(notes)})" if notes else text


def cell_text(outcomes: Sequence[Outcome], structure: str, score: str) -> str:
    """What a table says of runs that differ in their seed."""
    values = [o.result["scores"][structure][score] for o in outcomes if o.result]
    failed = sum(o.failed is not None for o in outcomes)
    missing = len(outcomes) - failed - sum(o.result is not None for o in outcomes)
    return _mean(values, failed, missing)


def dice_table(study: Study, outcomes: Sequence[Outcome], structure: str, score: str) -> Table:
    """Tables 3 to 6: a row for each volume and method, a column for each label budget.

    `score` is a key of `SCORES`.
    """
    rows = []
    for volume in study.volumes:
        if structure not in volume.structures:
            continue
        for method in study.methods:
            cells = {
                f"{budget} slices": cell_text(
                    [
                        o
                        for o in outcomes
                        if not o.cell.is_across
                        and structure in o.cell.structures
                        and (o.cell.volume, o.cell.method, o.cell.budget)
                        == (volume.name, method.name, budget)
                    ],
                    structure,
                    score,
                )
                for budget in study.budgets
            }
            rows.append({"volume": volume.name, "method": method.name, **cells})
    return Table(f"{score}_{structure}", tuple(rows), f"{structure}: {SCORES[score]}")


def counts_differ(outcomes: Sequence[Outcome], structure: str) -> bool:
    """Whether slices without the structure make a difference to the 3D Dice of any run."""
    return any(
        scores["dice_3d"] != scores["dice_3d_structure_slices"]
        for o in outcomes
        if o.result and (scores := o.result["scores"].get(structure))
    )


Comparison = tuple[str, str, int, int]


def by_comparison(outcomes: Sequence[Outcome]) -> dict[Comparison, dict[str, float | None]]:
    """3D Dice by method, for each volume, structure, budget and seed within one volume."""
    found: dict[Comparison, dict[str, float | None]] = {}
    for o in outcomes:
        if o.cell.is_across:
            continue
        for structure in o.cell.structures:
            key = (o.cell.volume, structure, o.cell.budget, o.cell.seed)
            found.setdefault(key, {})[o.cell.method] = o.dice_3d(structure)
    return found


def ranks(scores: dict[str, float]) -> dict[str, float]:
    """1 for the best; methods of one score share the mean of their places."""
    return {
        name: 1 + sum(v > score for v in scores.values()) + (_ties(scores, score) - 1) / 2
        for name, score in scores.items()
    }


def _ties(scores: dict[str, float], score: float) -> int:
    return sum(value == score for value in scores.values())


def summary_table(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """Table 2: mean, standard deviation and average rank of the 3D Dice over all comparisons."""
    compared = by_comparison(outcomes)
    # All methods are compared on the same volumes, structures, budgets and seeds. One without any
    # score would leave none of them.
    scored = {n for scores in compared.values() for n, score in scores.items() if score is not None}
    names = [method.name for method in study.methods if method.name in scored]
    whole = [
        {name: score for name, score in scores.items() if score is not None}
        for scores in compared.values()
        if all(scores.get(name) is not None for name in names)
    ]
    places = {name: [ranks(scores)[name] for scores in whole] for name in names}
    rows = []
    for method in study.methods:
        values = [scores.get(method.name) for scores in compared.values()]
        known_values = [scores[method.name] for scores in whole if method.name in scored]
        missing = sum(value is None for value in values)
        spread = statistics.stdev(known_values) if len(known_values) > 1 else None
        rows.append(
            {
                "method": method.name,
                "mean 3D Dice": (
                    f"{statistics.mean(known_values):.3f}" if known_values else UNDEFINED
                ),
                "standard deviation": UNDEFINED if spread is None else f"{spread:.3f}",
                "average rank": (
                    f"{statistics.mean(places[method.name]):.2f}" if known_values else UNDEFINED
                ),
                "failed or not run": str(missing),
            }
        )
    note = "over volumes, structures, budgets and seeds: "
    note += f"{len(whole)} of {len(compared)} comparisons, those in which every method has a score"
    if lacking := [method.name for method in study.methods if method.name not in scored]:
        note += f" ({', '.join(lacking)} never has one and is not ranked)"
    caption = f"Mean, standard deviation and average rank, {note}"
    return Table("summary", tuple(rows), caption, left=1)


def time_table(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """Table 1: parameters and training time of each method, as it was here."""
    rows = []
    for method in study.methods:
        runs = [o for o in outcomes if o.cell.method == method.name and not o.cell.is_across]
        results = [o.result for o in runs if o.result]
        whole = [result for result in results if not result["resumed"]]
        pair = is_pair(method.config)
        row = {"method": method.name, "network": registry.model_name(method.config.model)}
        if not results:
            failed = any(o.failed for o in runs)
            rows.append(row | {"parameters": FAILED if failed else MISSING})
            continue
        trained = results[0]["parameters"]
        seconds = [result["training_seconds"] for result in whole]
        steps = sorted({result["steps"] for result in results})
        rows.append(
            row
            | {
                "parameters": f"{trained // (2 if pair else 1):,}",
                "trained": f"{trained:,}",
                "steps": " to ".join(f"{n:,}" for n in sorted({steps[0], steps[-1]})),
                "batch x crop": (
                    f"{method.config.train.batch_size} x {method.config.data.crop_size}"
                ),
                "training, median": _clock(seconds, statistics.median),
                "shortest": _clock(seconds, min),
                "longest": _clock(seconds, max),
                "prediction, median": _clock(
                    [result["prediction_seconds"] for result in whole], statistics.median
                ),
                "runs timed": f"{len(whole)} of {len(runs)}",
            }
        )
    titles = {title: "" for row in rows for title in row}
    filled = tuple({**titles, **row} for row in rows)
    caption = "Parameters and time of a run, compilation included; not timed: runs that failed, or "
    return Table("training_time", filled, caption + "were stopped and went on")


def _clock(seconds: Sequence[float], of: Callable[[Sequence[float]], float]) -> str:
    return clock(of(seconds)) if seconds else UNDEFINED


def across_table(study: Study, outcomes: Sequence[Outcome]) -> Table | None:
    """Section 3.2: trained on the other volumes, beside the same method on this one."""
    rows = []
    for o in outcomes:
        if not o.cell.is_across:
            continue
        for structure in o.cell.structures:
            own = [
                other
                for other in outcomes
                if not other.cell.is_across
                and structure in other.cell.structures
                and (other.cell.volume, other.cell.budget, other.cell.method, other.cell.seed)
                == (o.cell.volume, o.cell.budget, o.cell.method, o.cell.seed)
            ]
            rows.append(
                {
                    "scored on": o.cell.volume,
                    "structure": structure,
                    "method": o.cell.method,
                    "seed": str(o.cell.seed),
                    "trained on": " + ".join(o.cell.trained_on),
                    "3D Dice": cell_text([o], structure, "dice_3d"),
                    "trained on itself": (
                        cell_text(own, structure, "dice_3d") if own else UNDEFINED
                    ),
                }
            )
    caption = f"3D Dice of networks trained on {study.across_budget} slices of each other volume"
    return Table("across_volumes", tuple(rows), caption) if rows else None


def cells_table(outcomes: Sequence[Outcome]) -> Table:
    """Every run and what became of it, one row a structure."""
    rows = []
    for o in outcomes:
        for structure in o.cell.structures:
            scores = o.result["scores"][structure] if o.result else {}
            rows.append(
                {
                    "volume": o.cell.volume,
                    "structure": structure,
                    "trained on": "+".join(o.cell.trained_on),
                    "method": o.cell.method,
                    "budget": str(o.cell.budget),
                    "seed": str(o.cell.seed),
                    "3D Dice": _exact(scores.get("dice_3d")),
                    "3D Dice, slices with structure": _exact(
                        scores.get("dice_3d_structure_slices")
                    ),
                    "average 2D Dice": _exact(scores.get("average_dice_2d")),
                    "slices scored": str(scores.get("slices_scored", "")),
                    "training, s": f"{o.result['training_seconds']:.0f}" if o.result else "",
                    "label": str(scores.get("prediction", "")),
                    "state": "done" if o.result else f"failed: {o.failed}" if o.failed else MISSING,
                }
            )
    return Table("runs", tuple(rows))


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
