import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vemseg_jax.data.crops.targets import boundary_target, distance_target, squared_distance


def _blobs(seed, shape, threshold=0.1):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3, 0))
    return (smooth > threshold * smooth.std()).astype(np.uint8)


@pytest.mark.parametrize("shape", [(2, 64, 48, 2), (1, 1, 17, 1), (1, 23, 1, 1), (1, 7, 90, 3)])
def test_distance_equals_scipys(shape):
    mask = _blobs(0, shape)
    mask[0, 0, 0] = 0
    found = np.asarray(jax.jit(squared_distance)(jnp.moveaxis(mask, -1, 1)))
    for b in range(shape[0]):
        for c in range(shape[-1]):
            if mask[b, ..., c].all():
                continue
            expected = ndimage.distance_transform_edt(mask[b, ..., c])
            np.testing.assert_array_equal(found[b, c], np.rint(expected**2))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_distance_on_noise(share):
    mask = (np.random.default_rng(1).random((33, 41)) < share).astype(np.uint8)
    expected = ndimage.distance_transform_edt(mask)
    np.testing.assert_array_equal(squared_distance(jnp.asarray(mask)), np.rint(expected**2))


def test_each_crop_and_channel_is_scaled_on_its_own():
    mask = np.zeros((2, 20, 20, 2), np.uint8)
    mask[0, 5:15, 5:15, 0] = 1
    mask[1, 9:12, 2:18, 1] = 1
    distance = np.asarray(jax.jit(distance_target)(mask))
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(distance.max((1, 2)), [[1, 0], [0, 1]])
    assert np.all(distance[mask == 0] == 0)
    assert distance[0, 5, 5, 0] == pytest.approx(1 / 5)


@pytest.mark.parametrize("value", [0, 1])
def test_a_crop_without_an_edge_has_neither_boundary_nor_distance(value):
    mask = jnp.full((1, 12, 15, 1), value, jnp.uint8)
    assert not np.any(boundary_target(mask))
    assert not np.any(distance_target(mask))


def test_boundary_follows_the_outline():
    mask = np.zeros((1, 32, 32, 1), np.uint8)
    mask[0, 8:24, 8:24] = 1
    boundary = np.asarray(boundary_target(mask))[0, ..., 0]
    assert set(np.unique(boundary)) == {0.0, 1.0}
    away = np.abs(np.indices((32, 32)) - 15.5).max(0)
    assert boundary[away < 4].sum() == 0 and boundary[away > 11].sum() == 0
    # One closed line, the same on all four sides but for the side that ties go to.
    _, count = ndimage.label(boundary, np.ones((3, 3)))
    assert count == 1


def test_gradients_never_fall_between_cannys_thresholds():
    # With 0 and 1 as thresholds a sum of 1 would need tracing; all 3 x 3 masks show there is none.
    from vemseg_jax.data.crops.targets import _sobel

    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    dx, dy = _sobel(jnp.asarray(bits.reshape(512, 3, 3), jnp.int32))
    assert not np.any((np.abs(dx) + np.abs(dy)) % 2)
