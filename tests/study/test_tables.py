"""Tables and claims from outcomes made up for them."""

import dataclasses
from pathlib import Path

import pytest

from tests.train.runs import small_config
from vemseg_jax.study import claims, figures, tables
from vemseg_jax.study.design import Cell, Method, Study, StudyVolume
from vemseg_jax.study.run import Outcome


def _method(name, cps="supervised", base=""):
    config = small_config("unset")
    config.cps = dataclasses.replace(config.cps, method=cps)
    return Method(name, config, base)


STUDY = Study(
    name="made up",
    volumes=tuple(StudyVolume(name, Path(name), ("nuclei",)) for name in "ABC"),
    budgets=(7, 25),
    methods=(
        _method("Net"), _method("SSL", "cps", "Net"), _method("SSL + CutMix", "cps_cutmix", "Net")
    ),
    seeds=(0, 1),
)  # fmt: skip


def _outcome(volume, budget, method, seed, dice, slices=()):
    cell = Cell(volume, (volume,), ("nuclei",), budget, method, seed)
    if dice is None:
        return Outcome(cell, None, "out of memory")
    scores = {"dice_3d": dice, "average_dice_2d": dice / 2, "slices": list(slices)}
    scores["dice_3d_structure_slices"] = dice + 0.1 * (method == "SSL" and seed == 1)
    result = {"scores": {"nuclei": scores}, "training_slices": [0, 10], "training_seconds": 60.0}
    result |= {"prediction_seconds": 5.0, "parameters": 200, "steps": 10, "resumed": False}
    return Outcome(cell, result, None)


def _all(dice_of):
    return [
        _outcome(v, b, m.name, s, dice_of(v, b, m.name, s))
        for v in "ABC"
        for b in STUDY.budgets
        for m in STUDY.methods
        for s in STUDY.seeds
    ]


BETTER = {"Net": 0.5, "SSL": 0.6, "SSL + CutMix": 0.7}


def _steady(volume, budget, method, seed):
    return BETTER[method] + 0.01 * seed + (0.05 if budget == 25 else 0) + 0.002 * (volume == "B")


def test_tables_of_dice_have_means_and_deviations_of_seeds():
    table = tables.dice_table(STUDY, _all(_steady), "nuclei", "dice_3d")
    assert len(table.rows) == 3 * len(STUDY.methods)
    assert [(row["volume"], row["method"]) for row in table.rows][:2] == [
        ("A", "Net"),
        ("A", "SSL"),
    ]
    assert table.rows[0]["7 slices"] == "0.505 ± 0.007"
    assert table.rows[2]["25 slices"] == "0.755 ± 0.007"
    of_structure = tables.dice_table(STUDY, _all(_steady), "nuclei", "dice_3d_structure_slices")
    assert [row["7 slices"][:5] for row in of_structure.rows[:3]] == ["0.505", "0.655", "0.705"]
    assert tables.counts_differ(_all(_steady), "nuclei")
    same = [o for o in _all(_steady) if o.cell.method != "SSL"]
    assert not tables.counts_differ(same, "nuclei")
    half = tables.dice_table(STUDY, _all(_steady), "nuclei", "average_dice_2d")
    assert half.rows[0]["7 slices"] == "0.253 ± 0.004"


def test_what_failed_or_was_not_run_is_said():
    def dice(volume, budget, method, seed):
        return None if method == "SSL" and (budget == 25 or seed == 1) else 0.5

    outcomes = [
        Outcome(o.cell, None, None) if o.cell.method == "Net" and o.cell.volume == "B" else o
        for o in _all(dice)
    ]
    rows = tables.dice_table(STUDY, outcomes, "nuclei", "dice_3d").rows
    assert rows[1]["7 slices"] == "0.500 (1 failed)" and rows[1]["25 slices"] == "failed"
    assert rows[3]["7 slices"] == "not run"
    summary = {row["method"]: row for row in tables.summary_table(STUDY, outcomes).rows}
    assert summary["SSL"]["failed or not run"] == "9" and summary["Net"]["mean 3D Dice"] == "0.500"
    # Seven slices and seed 0, of the two volumes where Net was run.
    assert "2 of 12 comparisons" in tables.summary_table(STUDY, outcomes).caption


def test_a_method_that_never_succeeds_does_not_empty_the_summary():
    table = tables.summary_table(STUDY, _all(lambda v, b, m, s: None if m == "SSL" else BETTER[m]))
    rows = {row["method"]: row for row in table.rows}
    assert rows["SSL"]["mean 3D Dice"] == rows["SSL"]["average rank"] == "-"
    assert rows["SSL"]["failed or not run"] == "12"
    assert [rows[name]["average rank"] for name in ("Net", "SSL + CutMix")] == ["2.00", "1.00"]
    assert "12 of 12 comparisons" in table.caption
    assert "(SSL never has one and is not ranked)" in table.caption


def test_ranks_share_places():
    assert tables.ranks({"a": 0.9, "b": 0.8, "c": 0.8, "d": 0.1}) == {
        "a": 1, "b": 2.5, "c": 2.5, "d": 4
    }  # fmt: skip
    summary = tables.summary_table(STUDY, _all(_steady)).rows
    assert [row["average rank"] for row in summary] == ["3.00", "2.00", "1.00"]
    # 0.5, and half of 0.01 and of 0.05, and a third of 0.002.
    assert summary[0]["mean 3D Dice"] == "0.531"


def test_claims_need_an_interval_on_one_side():
    found = {claim.text: claim for claim in claims.claims(STUDY, _all(_steady))}
    better = found["SSL is better than Net"]
    assert better.verdict == "shows" and list(better.differences) == ["A", "B", "C"]
    assert better.differences["B"] == pytest.approx([0.1] * 4)
    few = found["SSL with 7 labelled slices is better than Net with 25"]
    assert few.differences["A"] == pytest.approx([0.05] * 2) and few.verdict == "shows"
    assert found["SSL + CutMix is better than SSL"].verdict == "shows"
    control = found["Net with 25 labelled slices is better than with 7"]
    assert control.differences["A"] == pytest.approx([0.05] * 2) and control.verdict == "shows"
    assert control.sentence().startswith("Control: Net with 25") and not better.control
    assert len(found) == 8

    def noisy(volume, budget, method, seed):
        return 0.5 + {"A": 0.05, "B": -0.06, "C": 0.04}[volume] * (method == "SSL")

    found = {claim.text: claim for claim in claims.claims(STUDY, _all(noisy))}
    claim = found["SSL is better than Net"]
    # Means of the volumes 0.05, -0.06, 0.04: deviation 0.0608, t of 2 degrees 4.303.
    assert claim.verdict == "does not show"
    assert claim.interval == pytest.approx((0.01 - 0.1511, 0.01 + 0.1511), abs=2e-4)
    assert "ahead in 8 of 12 pairs" in claim.sentence()
    worse = claims.claims(STUDY, _all(lambda v, b, m, s: 1.2 - BETTER[m]))[0]
    assert worse.verdict == "the opposite shows"


def test_a_claim_without_runs_or_with_few_volumes_says_so():
    nothing = claims.claims(STUDY, _all(lambda v, b, m, s: None))[0]
    assert "nothing to compare" in nothing.sentence()
    # However many pairs there are: they share the slices of two volumes.
    few = claims.Claim("x", {"A": [0.3] * 9, "B": [0.29] * 9})
    assert few.verdict == "cannot be told from so few volumes" and few.interval is None
    assert "+0.295; ahead in 18 of 18 pairs" in few.sentence()
    assert claims.Claim("x", {"A": [-0.3, 0.1]}).verdict == few.verdict


def test_claims_and_figures_name_what_failed():
    def dice(volume, budget, method, seed):
        return None if (volume, method, seed) == ("B", "SSL", 0) else BETTER[method]

    outcomes = _all(dice)
    claim = claims.claims(STUDY, outcomes)[0]
    assert claim.left_out == 2 and len(claim.differences["B"]) == 2
    assert "2 more left out for runs that failed or were not run" in claim.sentence()
    few = {claim.text: claim for claim in claims.claims(STUDY, outcomes)}
    # Seed 0 of volume B.
    assert few["SSL with 7 labelled slices is better than Net with 25"].left_out == 1
    assert few["SSL + CutMix is better than Net"].left_out == 0
    a, b, _ = STUDY.volumes
    assert figures.absent(STUDY, outcomes, a, "nuclei") == ""
    assert figures.absent(STUDY, outcomes, b, "nuclei") == "; failed or not run: SSL"
    row = {row["method"]: row for row in tables.time_table(STUDY, outcomes).rows}["SSL"]
    assert row["runs timed"] == "10 of 12"


def test_stability_is_what_is_lost_far_from_labelled_slices():
    # Labelled at 0 and 10: the Dice falls by 0.02 with each slice away from them.
    slices = [[z, "test", 0.9 - 0.02 * min(z, 10 - z)] for z in range(1, 10)]
    slices += [[0, "train", 0.0], [11, "test", None]]
    outcomes = [_outcome("A", 7, "Net", 0, 0.8, slices), _outcome("A", 7, "SSL", 0, None)]
    rows = claims.stability(STUDY, outcomes)
    # Nearer than or at the median distance of 3: 1, 2, 3; farther: 4, 5.
    near, far = 0.9 - 0.02 * 2, 0.9 - 0.02 * (4 + 4 + 5) / 3
    assert rows[0]["near a labelled slice"] == f"{near:.3f}"
    assert rows[0]["far from one"] == f"{far:.3f}"
    assert rows[1]["lost on the way"] == "-"


def test_the_method_that_loses_less_far_from_labelled_slices_is_more_stable():
    def slices(method):
        drop = 0.02 if method == "Net" else 0.01
        return [[z, "test", 0.9 - drop * min(z, 10 - z)] for z in range(1, 10)]

    outcomes = [
        _outcome(v, b, m.name, s, 0.8, slices(m.name))
        for v in "ABC"
        for b in STUDY.budgets
        for m in STUDY.methods
        for s in STUDY.seeds
    ]
    found = {claim.text: claim for claim in claims.claims(STUDY, outcomes)}
    claim = found["SSL is more stable between 7 labelled slices than Net"]
    # Two seeds; near and far are 2 and 13 / 3 slices away on average.
    assert claim.differences["C"] == pytest.approx([0.01 * (13 / 3 - 2)] * 2)
    assert claim.verdict == "shows"
    assert "what Net and SSL lose of the Dice far from labelled slices +0.023" in claim.sentence()


def test_times_and_parameters_of_pairs_count_both_networks():
    rows = {row["method"]: row for row in tables.time_table(STUDY, _all(_steady)).rows}
    assert rows["Net"]["parameters"] == "200" and rows["SSL"]["parameters"] == "100"
    assert rows["SSL"]["trained"] == "200" and rows["SSL"]["training, median"] == "0:01:00"


def test_a_run_that_went_on_is_not_timed():
    outcomes = [o for o in _all(_steady) if o.cell.method == "Net"]
    for o in outcomes[1:]:
        o.result["resumed"], o.result["training_seconds"] = True, 1.0
    row = tables.time_table(STUDY, outcomes).rows[0]
    assert row["shortest"] == "0:01:00" and row["runs timed"] == "1 of 12"
    outcomes[0].result["resumed"] = True
    row = tables.time_table(STUDY, outcomes).rows[0]
    assert row["training, median"] == "-" and row["runs timed"] == "0 of 12"
    assert tables.time_table(STUDY, outcomes).rows[1]["parameters"] == "not run"
