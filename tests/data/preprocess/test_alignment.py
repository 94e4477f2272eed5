import numpy as np
import pytest
from scipy import ndimage
from skimage import exposure

from tests.data import stacks
from vemseg_jax.data.preprocess import equalization
from vemseg_jax.data.preprocess.alignment import (
    Box,
    measure,
    shared_box,
    spectrum,
    translate_ignore,
    translate_image,
    translate_label,
)
from vemseg_jax.data.preprocess.slice_shifts import (
    CONSTANT,
    JUMP,
    MIN_SCORE,
    UNLINKED,
    UNMATCHED,
    Estimate,
    Link,
    Tracker,
    keep_trend,
    match,
    solve_positions,
)

DEPTH, SIZE, MARGIN = 200, 216, 40


def _positions(planes, *, max_shift=15.0):
    tracker, spectra, estimates = Tracker(), {}, []
    for z, plane in enumerate(planes):
        spectra[z] = spectrum(plane)
        if spectra[z] is None:
            estimates.append(Estimate(z, flag=CONSTANT))
        else:
            estimates.append(
                match(
                    z,
                    tracker.candidates(),
                    lambda references, z=z: [measure(spectra[r], spectra[z]) for r in references],
                    max_shift=max_shift,
                )
            )
        tracker.add(estimates[-1])
    return solve_positions(estimates)


@pytest.fixture(scope="module")
def volume():
    return stacks.texture(DEPTH, SIZE)


def test_known_shifts_come_back_within_a_pixel_over_200_slices(volume):
    truth = stacks.walk(DEPTH)
    assert np.ptp(truth, axis=0).min() > 25
    found, flags = _positions(stacks.cut(volume, truth, margin=MARGIN))
    assert not any(flags)
    # The texture wanders by itself, which measurements follow; slowly, so that it can be told.
    assert np.abs(found - truth).max() < 1.5
    assert np.abs(keep_trend(found, np.ones(DEPTH, bool), 20) - truth).max() < 0.5


def test_featureless_slices_do_not_throw_off_the_rest(volume):
    truth = stacks.walk(DEPTH, seed=1)
    planes = stacks.cut(volume, truth, margin=MARGIN, seed=1)
    rng = np.random.default_rng(2)
    blank = np.clip(rng.normal(130, 12, planes.shape[1:]), 0, 255).astype(np.uint8)
    noisy = [40, 41, 42, 120]
    for z in noisy:
        planes[z] = np.clip(rng.normal(130, 12, planes.shape[1:]), 0, 255).astype(np.uint8)
    planes[0], planes[60], planes[61] = 0, 128, 255
    planes[150] = planes[151] = blank
    found, flags = _positions(planes)
    bad = {0: CONSTANT, 60: CONSTANT, 61: CONSTANT, 150: UNLINKED, 151: UNLINKED}
    bad |= dict.fromkeys(noisy, UNMATCHED)
    assert {z: flag for z, flag in enumerate(flags) if flag} == bad
    good = np.setdiff1d(np.arange(DEPTH), list(bad))
    assert np.abs(found - truth - (found - truth)[good[0]])[good].max() < 1
    np.testing.assert_allclose(found[41], (found[39] + found[43]) / 2, atol=1e-9)
    np.testing.assert_array_equal(found[0], found[1])


def test_slices_beyond_the_largest_shift_are_flagged(volume):
    truth = stacks.walk(30, step=1, jitter=0, limit=10)
    truth[12] += (20, 0)
    planes = stacks.cut(volume[:30], truth, margin=MARGIN, noise=5)
    found, flags = _positions(planes, max_shift=6)
    assert [z for z, flag in enumerate(flags) if flag] == [12]
    assert flags[12] == JUMP
    rest = np.arange(30) != 12
    assert np.abs(found - truth)[rest].max() < 1


def test_shifts_of_a_part_of_a_pixel(volume):
    plane = volume[0]
    moved = ndimage.shift(plane, (2.35, -1.6), order=3, mode="nearest")
    inner = np.s_[20:-20, 20:-20]
    found = measure(spectrum(moved[inner]), spectrum(plane[inner]))
    assert (found.dy, found.dx) == pytest.approx((2.35, -1.6), abs=0.06)
    same = measure(spectrum(plane), spectrum(plane))
    assert same[:3] == pytest.approx((0, 0, 1), abs=1e-3)


def test_unrelated_slices_score_below_the_least_that_is_trusted():
    rng = np.random.default_rng(0)
    planes = [spectrum(ndimage.gaussian_filter(rng.normal(size=(96, 128)), 2)) for _ in range(12)]
    scores = [measure(a, b).score for i, a in enumerate(planes) for b in planes[:i]]
    assert 3 < max(scores) < MIN_SCORE


def test_one_wrong_link_is_outvoted():
    truth = np.array([0, 3, 1, 4, 4, 2, 0, 1.0])
    estimates = []
    for z, y in enumerate(truth):
        links = [Link(z - k, y - truth[z - k], 0.0, 0.5) for k in (1, 2, 4) if k <= z]
        estimates.append(Estimate(z, tuple(links), 0.5, "" if links else UNMATCHED))
    wrong = estimates[5].links
    estimates[5] = Estimate(5, (wrong[0]._replace(dy=30.0), *wrong[1:]), 0.5)
    positions, flags = solve_positions(estimates)
    np.testing.assert_allclose(positions[:, 0], truth, atol=0.1)
    assert not any(flags)
    with pytest.raises(ValueError, match="no two slices"):
        solve_positions([Estimate(0, flag=CONSTANT), Estimate(1, flag=UNMATCHED)])


def test_tissue_at_a_slant_is_kept_and_shifts_are_not():
    z = np.arange(300.0)
    slant = np.stack([20 * np.sin(z / 100), z / 20], axis=1)
    shifts = stacks.walk(300)
    found = keep_trend(shifts + slant, np.ones(300, bool), 20)
    np.testing.assert_allclose(found[60:-60] - found[60], (shifts - shifts[60])[60:-60], atol=1)
    assert np.abs(np.diff(found - shifts, axis=0)[60:-60]).max() < 0.05


def test_shifts_by_parts_of_a_pixel_stay_as_measured_between_neighbours():
    shifts = np.cumsum(np.random.default_rng(0).normal(0, 1.3, (200, 2)), axis=0)
    found = keep_trend(shifts, np.ones(200, bool), 20)
    assert np.abs(np.diff(found - shifts, axis=0)).max() < 0.15


def test_slices_without_a_measurement_do_not_round_the_others_away():
    shifts = np.repeat(np.arange(0.0, 40, 1)[:, None], 2, 1)
    placed = np.ones(40, bool)
    placed[[11, 12, 13, 30]] = False
    np.testing.assert_allclose(keep_trend(shifts, placed, 20), shifts - shifts[0], atol=1e-9)


def test_box_lies_within_every_slice():
    shifts = np.array([[0, 0], [3.2, -1], [-2, 4.5]])
    box = shared_box(shifts, (50, 40))
    assert box == Box(4, 5, 44, 34)
    for dy, dx in shifts:
        assert box.top - dy >= 0 and box.top - dy + box.height <= 50
        assert box.left - dx >= 0 and box.left - dx + box.width <= 40
    assert shared_box(np.array([[0, 0], [60, 0]]), (50, 40)).height < 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_interpolated(dtype):
    y, x = np.mgrid[:40, :50]
    ramp = (3 * y + 2 * x).astype(dtype)
    whole = translate_image(ramp, (4.0, 7.0), (30, 40))
    np.testing.assert_array_equal(whole, ramp[4:34, 7:47])
    between = translate_image(ramp, (4.5, 7.25), (30, 40))
    assert between.dtype == dtype
    exact = 3 * (y + 4.5) + 2 * (x + 7.25)
    assert np.abs(between - exact[:30, :40]).max() <= 0.5
    noise = np.random.default_rng(0).normal(size=(60, 60))
    smooth = np.rint(120 + 300 * ndimage.gaussian_filter(noise, 3)).astype(dtype)
    spline = ndimage.shift(smooth.astype(float), (-10.4, -9.7), order=3)[:40, :40]
    assert np.ptp(spline) > 50
    assert np.abs(translate_image(smooth, (10.4, 9.7), (40, 40)) - spline).max() < 1.5


def test_labels_take_the_nearest_pixel_and_are_unlabelled_outside():
    mask = np.random.default_rng(0).integers(0, 2, (20, 20), np.uint8)
    np.testing.assert_array_equal(translate_label(mask, (2.4, 3.6), (9, 9)), mask[2:11, 4:13])
    outside = translate_label(mask, (-1.6, 12.0), (20, 8))
    np.testing.assert_array_equal(outside[2:], mask[:18, 12:])
    assert (outside[:2] == 255).all()


def test_ignore_grows_to_whatever_draws_on_it():
    mask = np.zeros((20, 20), np.uint8)
    mask[10, 10] = 1
    np.testing.assert_array_equal(
        np.argwhere(translate_ignore(mask, (3.0, 2.0), (15, 15))), [[7, 8]]
    )
    plane = np.zeros((20, 20), np.uint8)
    plane[10, 10] = 255
    start = (3.4, 2.6)
    drawn = translate_image(plane, start, (15, 15)) > 0
    grown = translate_ignore(mask, start, (15, 15))
    assert grown[drawn].all()
    assert grown.sum() == 16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_histograms_are_those_of_scikit_image(dtype):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    low = rng.gamma(3, top / 40, (80, 90)).clip(0, top).astype(dtype)
    other = rng.normal(top / 2, top / 9, (70, 60)).clip(0, top).astype(dtype)
    valid = rng.random(low.shape) < 0.7

    equal = equalization.equalize(low)
    assert equal.dtype == dtype
    np.testing.assert_allclose(equal, exposure.equalize_hist(low) * top, atol=0.5 + 1e-6)
    np.testing.assert_allclose(
        equalization.equalize(low, valid),
        exposure.equalize_hist(low, mask=valid) * top,
        atol=0.5 + 1e-6,
    )
    np.testing.assert_allclose(
        equalization.matcher(other)(low),
        exposure.match_histograms(low, other).astype(float),
        atol=1,
    )
    adaptive = equalization.clahe(low, clip_limit=0.02)
    assert adaptive.dtype == dtype
    np.testing.assert_allclose(
        adaptive, exposure.equalize_adapthist(low, clip_limit=0.02) * top, atol=0.5 + 1e-6
    )
    constant = np.full((20, 30), 7, dtype)
    for function in (
        equalization.equalize,
        equalization.matcher(other),
        lambda plane: equalization.clahe(plane, clip_limit=0.01),
    ):
        np.testing.assert_array_equal(function(constant), constant)


def test_pixels_that_do_not_count_leave_the_histogram_alone():
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 100, (60, 60), np.uint8)
    spoiled = plane.copy()
    spoiled[:20] = 255
    valid = np.ones(plane.shape, bool)
    valid[:20] = False
    for function in (equalization.equalize, equalization.matcher(plane)):
        np.testing.assert_array_equal(function(spoiled, valid)[20:], function(plane, valid)[20:])
    np.testing.assert_array_equal(
        equalization.matcher(spoiled, valid)(plane), equalization.matcher(plane[20:])(plane)
    )
