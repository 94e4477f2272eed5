"""Whether claims of the paper show in these runs, by paired differences."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import t as student

from vemseg_jax.config import is_pair
from vemseg_jax.study.design import Study
from vemseg_jax.study.run import Outcome
from vemseg_jax.study.tables import by_comparison

CONFIDENCE = 0.95
# Volumes that an interval takes: pairs of one volume share its slices and are no repetitions.
FEWEST_VOLUMES = 3
SHOWN, REVERSED, NOT_SHOWN = "shows", "the opposite shows", "does not show"
TOO_FEW = "cannot be told from so few volumes"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and the paired differences that speak for it (positive) or against it.

    `differences` are those of each volume by its name; `of` says what differs. `left_out` counts
    pairs of which a run failed or was not run. A `control` is no claim of the paper's, but what
    its claims have to be read against.
    """

    text: str
    differences: Mapping[str, Sequence[float]]
    of: str = "the 3D Dice"
    left_out: int = 0
    control: bool = False

    @property
    def means(self) -> list[float]:
        """The mean difference of each volume that has any."""
        return [statistics.mean(values) for values in self.differences.values() if values]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean over volumes, by Student's t; None for fewer than three."""
        means = self.means
        if len(means) < FEWEST_VOLUMES:
            return None
        mean, error = statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5
        half = float(student.ppf(0.5 + CONFIDENCE / 2, len(means) - 1)) * error
        return mean - half, mean + half

    @property
    def verdict(self) -> str:
        """It shows where the whole interval lies above 0, its opposite where it lies below.

        Without an interval, that of fewer than three volumes, neither can be told.
        """
        interval = self.interval
        if interval is None:
            return TOO_FEW
        low, high = interval
        return SHOWN if low > 0 else REVERSED if high < 0 else NOT_SHOWN

    def sentence(self) -> str:
        """The claim, the verdict and the numbers."""
        pairs = [value for values in self.differences.values() for value in values]
        if not pairs:
            return f"{self._name}: nothing to compare, its runs failed or were not run."
        mean = statistics.mean(self.means)
        text = f"{self._name}: {self.verdict} (mean difference of {self.of} {mean:+.3f}"
        if self.interval is not None:
            low, high = self.interval
            text += f", 95 % interval {low:+.3f} to {high:+.3f}"
        wins = sum(value > 0 for value in pairs)
        text += f"; ahead in {wins} of {len(pairs)} pairs"
        if self.left_out:
            text += f", {self.left_out} more left out for runs that failed or were not run"
        return f"{text})."

    @property
    def _name(self) -> str:
        return f"Control: {self.text}" if self.control else self.text


# Volume, and the scores of two runs that are compared; None of a run that failed or was not run.
Pairs = Iterable[tuple[str, float | None, float | None]]


def _claim(text: str, pairs: Pairs, **more: Any) -> Claim:
    """The claim that the first scores are higher than the second."""
    found: dict[str, list[float]] = {}
    left_out = 0
    for volume, better, worse in pairs:
        if better is not None and worse is not None:
            found.setdefault(volume, []).append(better - worse)
        else:
            left_out += 1
    return Claim(text, found, left_out=left_out, **more)


def claims(study: Study, outcomes: Sequence[Outcome]) -> list[Claim]:
    """Every claim of the paper that these runs can speak to, controls beside them."""
    compared = by_comparison(outcomes)
    few, many = min(study.budgets), max(study.budgets)

    def versus(one: str, other: str) -> Claim:
        pairs = ((key[0], s.get(one), s.get(other)) for key, s in compared.items())
        return _claim(f"{one} is better than {other}", pairs)

    def across_budgets(one: str, one_budget: int, other: str, other_budget: int) -> Pairs:
        for volume, structure, seed in dict.fromkeys((v, s, n) for v, s, _, n in compared):
            first, second = (
                compared.get((volume, structure, budget, seed), {})
                for budget in (one_budget, other_budget)
            )
            yield volume, first.get(one), second.get(other)

    pairs = [m for m in study.methods if is_pair(m.config) and m.base]
    found = [versus(m.name, m.base) for m in pairs]
    if few < many:
        for m in pairs:
            text = f"{m.name} with {few} labelled slices is better than {m.base} with {many}"
            found.append(_claim(text, across_budgets(m.name, few, m.base, many)))
        # Where more labels do not help, few labels that do as well say nothing of the method.
        for base in dict.fromkeys(m.base for m in pairs):
            text = f"{base} with {many} labelled slices is better than with {few}"
            found.append(_claim(text, across_budgets(base, many, base, few), control=True))
    for mixed in pairs:
        for plain in pairs:
            same = (mixed.base, plain.config.cps.method) == (plain.base, "cps")
            if same and mixed.config.cps.method == "cps_cutmix":
                found.append(versus(mixed.name, plain.name))
    lost = _lost(study, outcomes)
    for m in pairs:
        text = f"{m.name} is more stable between {few} labelled slices than {m.base}"
        what = f"what {m.base} and {m.name} lose of the Dice far from labelled slices"
        differences = ((key[0], each.get(m.base), each.get(m.name)) for key, each in lost.items())
        found.append(_claim(text, differences, of=what))
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
        row = {"method": method.name} | dict.fromkeys(titles, "-")
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
