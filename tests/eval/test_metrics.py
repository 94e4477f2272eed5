import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from vemseg_jax.eval.metrics import (
    DiceAccumulator,
    SliceCounts,
    accumulate,
    count_slice,
    stack_dice,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "stack_dice.npz"


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden file at {GOLDEN}")
def test_agrees_with_the_reference():
    golden = np.load(GOLDEN, allow_pickle=False)
    found = stack_dice(golden["gt"], golden["pred"])
    np.testing.assert_allclose(found.every_dice, golden["every_dice"], atol=1e-6)
    assert found.average_dice_2d == pytest.approx(float(golden["avg_dice_2d"]), abs=1e-6)
    assert found.dice_3d_structure_slices == pytest.approx(float(golden["f64/dice_3d"]), abs=1e-12)
    everything = float(golden["dice_3d_if_all_slices_counted"])
    assert found.dice_3d == pytest.approx(everything, abs=1e-6)
    assert len(found.empty_slices) == int(golden["empty_slices"])
    assert found.structure_totals == tuple(golden["pixels_gt_pred_common"].tolist())


def test_by_hand():
    truth = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]]], np.uint8)
    prediction = np.array([[[0, 1, 1, 0]], [[1, 0, 0, 0]]], np.uint8)
    found = stack_dice(truth, prediction)
    assert found.every_dice == (3 / 5,)
    assert found.average_dice_2d == 3 / 5
    assert found.dice_3d == 2 / 5
    assert found.dice_3d_structure_slices == 2 / 4
    assert found.empty_slices == (1,)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.float32])
def test_more_than_255_pixels_do_not_wrap(dtype):
    plane = np.ones((40, 50), dtype)
    counts = count_slice(plane, plane)
    assert (counts.truth, counts.predicted, counts.common) == (2000, 2000, 2000)
    assert counts.dice_2d == 1


def test_a_volume_of_6e10_voxels_does_not_overflow():
    area = 6000 * 4000
    one = SliceCounts(z=0, truth=area, predicted=area - 1, common=area - 1, pixels=area)
    total = accumulate(one for _ in range(2500))
    assert total.truth == 60_000_000_000
    assert total.common == 2500 * (area - 1)
    assert type(total.truth) is int
    assert total.dice_3d == pytest.approx(1 - 1 / (2 * area), abs=1e-12)


def test_counts_are_python_integers():
    counts = count_slice(np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8), z=np.int64(3))
    assert {type(value) for value in dataclasses.astuple(counts)} == {int}


def test_unlabelled_pixels_are_in_no_count():
    truth = np.array([[1, 255, 255, 0]], np.uint8)
    counts = count_slice(truth, np.ones((1, 4), np.uint8))
    assert dataclasses.astuple(counts) == (0, 1, 2, 1, 2)


def test_ignored_pixels_are_in_no_count():
    truth, prediction = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0]])
    valid = np.array([[True, False, False, True]])
    assert dataclasses.astuple(count_slice(truth, prediction, valid=valid)) == (0, 1, 1, 1, 2)


def test_slice_without_structure_has_no_2d_dice():
    assert math.isnan(count_slice(np.zeros((2, 2)), np.ones((2, 2))).dice_2d)


def test_nothing_there_and_nothing_found_has_no_score():
    total = accumulate([count_slice(np.zeros((2, 2)), np.zeros((2, 2)))])
    for score in (
        total.dice_3d,
        total.dice_3d_structure_slices,
        total.average_dice_2d,
        total.precision,
        total.recall,
    ):
        assert math.isnan(score)


def test_precision_and_recall():
    total = DiceAccumulator()
    total.add(SliceCounts(z=0, truth=8, predicted=4, common=2, pixels=100))
    assert (total.precision, total.recall) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("truth", "prediction", "match"),
    [
        (np.full((2, 2), 2), np.ones((2, 2)), r"truth holds the values \[2\]"),
        (np.ones((2, 2)), np.full((2, 2), 255), r"prediction holds the values \[255\]"),
        (np.ones((2, 2)), np.ones((2, 3)), "differ in shape"),
    ],
)
def test_refuses_what_it_cannot_count(truth, prediction, match):
    with pytest.raises(ValueError, match=match):
        count_slice(truth, prediction)


def test_refuses_stacks_of_different_length():
    with pytest.raises(ValueError, match="2 slices, prediction has 3"):
        stack_dice(np.ones((2, 4, 4)), np.ones((3, 4, 4)))
