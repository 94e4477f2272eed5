from pathlib import Path

import numpy as np
import pytest

from vemseg_jax.data.store.downsample import (
    downsample_ignore,
    downsample_image,
    downsample_mask,
    downsampled_size,
)

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "downsample.npz"


def _blocks(plane):
    """The four middle pixels of every block, taken one block at a time."""
    h, w = ((n + 1) // 4 for n in plane.shape)
    out = np.zeros((h, w, 4), np.int64)
    for i in range(h):
        for j in range(w):
            out[i, j] = plane[4 * i + 1 : 4 * i + 3, 4 * j + 1 : 4 * j + 3].ravel()
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3, 3), (4, 7), (13, 22), (64, 65), (2, 9)])
def test_image_is_mean_of_middle_pixels_rounded_half_up(dtype, shape):
    plane = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    expected = np.floor(_blocks(plane).mean(-1) + 0.5)
    result = downsample_image(plane)
    assert result.dtype == dtype
    assert result.shape == tuple(downsampled_size(n) for n in shape)
    np.testing.assert_array_equal(result, expected)


def test_rounding_and_range():
    plane = np.zeros((4, 4), np.uint8)
    plane[1, 1:3] = 1
    assert downsample_image(plane) == 1
    plane[1, 2] = 0
    assert downsample_image(plane) == 0
    assert downsample_image(np.full((4, 4), 65535, np.uint16)) == 65535


def test_leading_axes_are_kept():
    planes = np.random.default_rng(1).integers(0, 256, (2, 3, 9, 10), np.uint8)
    np.testing.assert_array_equal(downsample_image(planes)[1, 2], downsample_image(planes[1, 2]))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_mask_needs_three_of_four_and_ignore_one(dtype):
    plane = np.random.default_rng(2).integers(0, 2, (41, 30)).astype(dtype)
    count = _blocks(plane).sum(-1)
    assert set(np.unique(count)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(downsample_mask(plane), count >= 3)
    np.testing.assert_array_equal(downsample_ignore(plane), count >= 1)
    assert downsample_mask(plane).dtype == np.uint8


def test_refuses_what_is_no_image_or_mask():
    with pytest.raises(ValueError, match="255"):
        downsample_mask(np.full((4, 4), 255, np.uint8))
    with pytest.raises(ValueError, match="int32"):
        downsample_image(np.zeros((4, 4), np.int32))


@pytest.mark.skipif(not REFERENCE.exists(), reason="the golden files are not beside the project")
def test_agrees_with_reference():
    golden = np.load(REFERENCE, allow_pickle=False)
    image = downsample_image(golden["image_uint8"].astype(np.float32) / 255)
    np.testing.assert_allclose(image, golden["image_down"], atol=1e-6)
    np.testing.assert_allclose(
        downsample_image(golden["image_uint8"]) / 255, golden["image_down"], atol=0.5 / 255 + 1e-6
    )
    np.testing.assert_array_equal(downsample_mask(golden["mask01"])[0], golden["mask01_down"])
