import numpy as np
import pytest
from scipy.stats import chisquare

from vemseg_jax.data.crops.input_pipeline import reflect_pad, short_sides
from vemseg_jax.data.crops.sampling import CropSampler, EvenSampler, crop_positions
from vemseg_jax.errors import InputError


def _brute_force(mask, size):
    h, w = mask.shape
    return {
        (y, x)
        for y in range(h - size + 1)
        for x in range(w - size + 1)
        if mask[y : y + size, x : x + size].any()
    }


def _all_corners(positions):
    return [positions.corner(k) for k in range(positions.total)]


@pytest.mark.parametrize("shape, size", [((12, 15), 5), ((6, 9), 6), ((7, 7), 7)])
def test_positions_are_those_of_brute_force(shape, size):
    mask = np.random.default_rng(3).random(shape) > 0.97
    mask[0, 0] = True
    holds, lacks = crop_positions(mask, size)
    corners = _all_corners(holds)
    assert len(set(corners)) == len(corners)
    assert set(corners) == _brute_force(mask, size)
    everywhere = {(y, x) for y in range(shape[0] - size + 1) for x in range(shape[1] - size + 1)}
    assert set(_all_corners(lacks)) == everywhere - set(corners)


def test_a_single_pixel_in_a_corner_leaves_one_position():
    mask = np.zeros((20, 30), bool)
    mask[-1, -1] = True
    holds, _ = crop_positions(mask, 8)
    assert _all_corners(holds) == [(12, 22)]


def _labels(*planes):
    return np.stack(planes)[..., None].astype(np.uint8)


def _sampler(labels, **options):
    defaults = {"crop_size": 6, "batch_size": 16, "empty_probability": 0.0, "seed": 1}
    return CropSampler(labels, ("nuclei",) * labels.shape[-1], **{**defaults, **options})


def test_uniform_over_slices_and_over_their_positions():
    rng = np.random.default_rng(0)
    few, many = np.zeros((10, 12)), rng.random((10, 12)) > 0.8
    few[9, 0] = 1  # one valid position against many: slices, not positions, are drawn evenly
    few[4, 6] = 1
    labels = _labels(few, many)
    draws = [_sampler(labels)(step) for step in range(500)]
    planes = np.concatenate([crops.plane for crops in draws])
    assert chisquare(np.bincount(planes)).pvalue > 1e-3
    corners = np.concatenate([crops.corner for crops in draws])
    for n in range(2):
        expected = sorted(_brute_force(labels[n, ..., 0] == 1, 6))
        found = [tuple(corner) for corner in corners[planes == n]]
        counts = [found.count(corner) for corner in expected]
        assert sum(counts) == len(found)
        assert chisquare(counts).pvalue > 1e-3


def test_symmetries_are_even():
    labels = _labels(np.ones((8, 8)))
    codes = np.concatenate([_sampler(labels)(step).symmetry for step in range(200)])
    assert chisquare(np.bincount(codes, minlength=8)).pvalue > 1e-3


def _share_with_structure(labels, probability):
    sampler = _sampler(labels, empty_probability=probability)
    held = [
        labels[n, y : y + 6, x : x + 6, 0].max() == 1
        for step in range(300)
        for n, (y, x) in zip(*sampler(step)[:2], strict=True)
    ]
    return np.mean(held)


def test_share_of_empty_crops_is_what_was_asked_for():
    mask = np.zeros((40, 40))
    mask[3, 3] = 1
    labels = _labels(mask, np.zeros((40, 40)))
    assert _share_with_structure(labels, 0.0) == 1
    assert _share_with_structure(labels, 0.001) >= 0.99
    # 4800 draws: four standard deviations are 0.024
    assert abs(_share_with_structure(labels, 0.25) - 0.75) < 0.025


def test_a_batch_depends_on_seed_and_step_alone():
    labels = _labels(np.random.default_rng(0).random((30, 30)) > 0.9)
    first, again = _sampler(labels), _sampler(labels)
    for crops, same in zip(first(7), again(7), strict=True):
        np.testing.assert_array_equal(crops, same)
    assert np.any(first(7).corner != first(8).corner)
    assert np.any(first(7).corner != _sampler(labels, seed=2)(7).corner)


def test_unlabelled_and_ignored_pixels_are_no_structure_and_no_background():
    mask, unlabelled = np.zeros((20, 20)), np.full((20, 20), 255)
    mask[2, 2] = 1
    sampler = _sampler(_labels(mask, unlabelled), empty_probability=0.5)
    planes = np.concatenate([sampler(step).plane for step in range(50)])
    assert set(planes) == {0}


def _labelled_share(labels, sampler, steps=100):
    """Of every crop drawn, the share of labelled pixels, and whether it holds structure."""
    crops = [
        labels[n, y : y + 6, x : x + 6, 0]
        for step in range(steps)
        for n, (y, x) in zip(*sampler(step)[:2], strict=True)
    ]
    return np.array([(c != 255).mean() for c in crops]), np.array([(c == 1).any() for c in crops])


def test_an_empty_crop_holds_labelled_background():
    mask = np.full((40, 40), 255)
    mask[:, :12] = 0
    mask[3, 3] = 1
    labels = _labels(mask)
    share, holds = _labelled_share(labels, _sampler(labels, empty_probability=0.5))
    assert 0.4 < holds.mean() < 0.6
    # Less than a tenth is less than four pixels of a crop of 36.
    assert share.min() >= 4 / 36
    assert share[~holds].mean() > 0.5


def test_crops_that_hold_structure_hold_other_labels_too():
    mask = np.full((40, 40), 255)
    mask[:20] = 0
    mask[19, :] = 1
    labels = _labels(mask)
    share, _ = _labelled_share(labels, _sampler(labels))
    assert share.min() > 0.1


def test_patches_smaller_than_a_tenth_of_a_crop_are_still_drawn():
    mask = np.full((40, 40), 255)
    mask[10, 10], mask[30, 30] = 1, 0
    labels = _labels(mask)
    share, holds = _labelled_share(labels, _sampler(labels, empty_probability=0.5))
    assert share.min() == 1 / 36 and 0.4 < holds.mean() < 0.6


def test_no_background_no_empty_crops():
    mask = np.full((40, 40), 255)
    mask[10:12, 10:12] = 1
    labels = _labels(mask)
    share, holds = _labelled_share(labels, _sampler(labels, empty_probability=0.9))
    assert holds.all() and share.min() > 0


def test_several_structures_are_drawn_evenly():
    labels = np.zeros((2, 20, 20, 2), np.uint8)
    labels[0, 0, 0, 0] = 1
    labels[1, 19, 19, 1] = 1
    planes = np.concatenate([_sampler(labels)(step).plane for step in range(100)])
    assert chisquare(np.bincount(planes)).pvalue > 1e-3


def test_a_structure_that_no_slice_shows_is_refused():
    with pytest.raises(InputError, match="'nuclei' has no pixel on any training slice"):
        _sampler(_labels(np.zeros((10, 10))))


def test_slices_without_labels_are_visited_evenly_and_anywhere():
    sampler = EvenSampler(7, (40, 50), crop_size=16, batch_size=4, seed=3)
    batches = [sampler(step) for step in range(200)]
    planes = np.concatenate([batch.plane for batch in batches])
    for end in (5, 100, 800):
        counts = np.bincount(planes[:end], minlength=7)
        assert counts.max() - counts.min() <= 1
    corners = np.concatenate([batch.corner for batch in batches])
    assert corners.min() == 0 and tuple(corners.max(0)) == (40 - 16, 50 - 16)
    assert set(np.concatenate([batch.symmetry for batch in batches])) == set(range(8))
    # Rounds differ in order, and a step is the same whenever it is asked for.
    assert len({tuple(planes[n : n + 7]) for n in range(0, 700, 7)}) > 50
    again = EvenSampler(7, (40, 50), crop_size=16, batch_size=4, seed=3)(11)
    for one, other in zip(again, batches[11], strict=True):
        np.testing.assert_array_equal(one, other)


def _pixels(shape, *pixels):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(np.transpose(pixels))] = 1
    return mask


CASES = {
    "one pixel at a corner": (_pixels((10, 12), (0, 11))[..., None],),
    "one pixel near a corner": (_pixels((10, 12), (1, 10))[..., None],),
    "slices smaller than a crop": (_pixels((4, 9), (3, 1))[..., None],),
    "two structures, one of them tiny": (
        np.stack([_pixels((10, 12), (9, 0)), np.ones((10, 12), np.uint8)], -1),
        np.stack([_pixels((10, 12), (5, 6)), _pixels((10, 12), (0, 3), (9, 9))], -1),
    ),
}


@pytest.mark.parametrize("planes", CASES.values(), ids=CASES.keys())
def test_crops_are_distributed_as_by_brute_force(planes):
    size = 6
    labels = np.stack([reflect_pad(p[None], short_sides(p.shape, size))[0] for p in planes])
    expected = {}
    channels = labels.shape[-1]
    for channel in range(channels):
        holding = [n for n, plane in enumerate(labels) if plane[..., channel].any()]
        for n in holding:
            corners = _brute_force(labels[n, ..., channel], size)
            for corner in corners:
                share = 1 / (channels * len(holding) * len(corners))
                expected[n, *corner] = expected.get((n, *corner), 0) + share
    draws = [_sampler(labels)(step) for step in range(400)]
    found = dict.fromkeys(expected, 0)
    for crops in draws:
        for n, (y, x) in zip(crops.plane, crops.corner, strict=True):
            found[int(n), int(y), int(x)] += 1
    total = sum(found.values())
    assert total == 400 * 16
    if len(expected) > 1:
        counts = [total * expected[key] for key in found]
        assert chisquare(list(found.values()), counts).pvalue > 1e-3
