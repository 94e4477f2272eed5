"""Whether claims of the study show in these runs, by paired differences."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.stats import t as student

from vemseg_jax.config import is_pair
from vemseg_jax.study.design import Study
from vemseg_jax.study.run import Outcome
from vemseg_jax.study.tables import by_comparison

CONFIDENCE = 0.95
SHOWN, REVERSED, NOT_SHOWN = "shows", "the opposite shows", "does not show"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and the paired differences that speak for it (positive) or against it.

    `of` says what differs.
    """

    text: str
    differences: tuple[float, ...]
    of: str = "the 3D Dice"

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean difference, by Student's t; without end for fewer than two pairs."""
        count = len(self.differences)
        if count < 2:
            return -np.inf, np.inf
        mean, error = statistics.mean(self.differences), statistics.stdev(self.differences)
        half = float(student.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error / count**0.5
        return mean - half, mean + half

    @property
    def verdict(self) -> str:
        """It shows where the whole interval lies above 0, its opposite where it lies below."""
        low, high = self.interval
        return SHOWN if low > 0 else REVERSED if high < 0 else NOT_SHOWN

    def sentence(self) -> str:
        """The claim, the verdict and the numbers."""
        if not self.differences:
            return f"{self.text}: nothing to compare, its runs failed or were not run."
        low, high = self.interval
        wins = sum(value > 0 for value in self.differences)
        count = len(self.differences)
        between = f", 95 % interval {low:+.3f} to {high:+.3f}" if count > 1 else ""
        mean = statistics.mean(self.differences)
        return (
            f"{self.text}: {self.verdict} (mean difference of {self.of} {mean:+.3f}{between}; "
            f"ahead in {wins} of {count} pairs)."
        )


def _differences(
    pairs: Iterable[tuple[float | None, float | None]],
) -> tuple[float, ...]:
    return tuple(a - b for a, b in pairs if a is not None and b is not None)


def claims(study: Study, outcomes: Sequence[Outcome]) -> list[Claim]:
    """Every claim of the study that these runs can speak to."""
    compared = by_comparison(outcomes)
    found: list[Claim] = []
    pairs = [m for m in study.methods if is_pair(m.config) and m.base]
    for method in pairs:
        differences = _differences(
            (s.get(method.name), s.get(method.base)) for s in compared.values()
        )
        found.append(Claim(f"{method.name} is better than {method.base}", differences))
    few, many = min(study.budgets), max(study.budgets)
    for method in pairs if few < many else ():
        differences = _differences(
            (scores.get(method.name), compared.get((v, s, many, seed), {}).get(method.base))
            for (v, s, budget, seed), scores in compared.items()
            if budget == few
        )
        text = f"{method.name} with {few} labelled slices is better than {method.base} with {many}"
        found.append(Claim(text, differences))
    for mixed in pairs:
        for plain in pairs:
            same = (mixed.base, plain.config.cps.method) == (plain.base, "cps")
            if same and mixed.config.cps.method == "cps_cutmix":
                differences = _differences(
                    (s.get(mixed.name), s.get(plain.name)) for s in compared.values()
                )
                found.append(Claim(f"{mixed.name} is better than {plain.name}", differences))
    lost = _lost(study, outcomes)
    for method in pairs:
        differences = _differences(
            (by_method.get(method.base), by_method.get(method.name)) for by_method in lost.values()
        )
        text = f"{method.name} is more stable between {few} labelled slices than {method.base}"
        what = f"what {method.base} and {method.name} lose of the Dice far from labelled slices"
        found.append(Claim(text, differences, of=what))
    return found


Halves = tuple[float | None, float | None]


def _near_and_far(
    study: Study, outcomes: Sequence[Outcome]
) -> Iterator[tuple[Outcome, str, Halves]]:
    """Near and far mean Dice of each structure, of the runs with the smallest budget."""
    for o in outcomes:
        if not o.result or o.cell.is_across or o.cell.budget != min(study.budgets):
            continue
        for structure in o.cell.structures:
            slices = o.result["scores"][structure]["slices"]
            yield o, structure, _halves(slices, o.result["training_slices"])


def _lost(
    study: Study, outcomes: Sequence[Outcome]
) -> dict[tuple[str, str, int], dict[str, float]]:
    """Near less far by method, for each volume, structure and seed."""
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for o, structure, (near, far) in _near_and_far(study, outcomes):
        if near is not None and far is not None:
            by_method = found.setdefault((o.cell.volume, structure, o.cell.seed), {})
            by_method[o.cell.method] = near - far
    return found


def stability(study: Study, outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """How much worse slices far from a labelled one are than near ones, by method.

    Near and far are the halves of the scored slices by their distance to the closest training
    slice, at the smallest budget; both are means of the Dice of slices with structure.
    """
    titles = ("near a labelled slice", "far from one", "lost on the way")
    rows = []
    for method in study.methods:
        halves = [
            (near, far)
            for o, _, (near, far) in _near_and_far(study, outcomes)
            if o.cell.method == method.name and near is not None and far is not None
        ]
        row = {"method": method.name, "": ""} | dict.fromkeys(titles, "-")
        if halves:
            near, far = (statistics.mean(values) for values in zip(*halves, strict=True))
            row |= dict(zip(titles, (f"{x:.3f}" for x in (near, far, near - far)), strict=True))
        rows.append(row)
    return rows


def _halves(slices: Sequence[Sequence], training: Sequence[int]) -> Halves:
    """Mean Dice of the nearer and of the farther half of the scored slices with structure."""
    scored = [(z, dice) for z, role, dice in slices if role == "test" and dice is not None]
    if len(scored) < 2 or not training:
        return None, None
    away = [min(abs(z - other) for other in training) for z, _ in scored]
    limit = statistics.median(away)
    placed = [(dice, d > limit) for (_, dice), d in zip(scored, away, strict=True)]
    near, far = ([dice for dice, is_far in placed if is_far == half] for half in (False, True))
    return (statistics.mean(near) if near else None), (statistics.mean(far) if far else None)
