import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.infer import tiling


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (10, 200), (1, 65)])
def test_windows_cover_every_pixel(shape):
    plan = tiling.plan_windows(shape, kernel=64, stride=16)
    assert plan.count.min() >= 1
    assert plan.count.sum() == len(plan.corners) * 64 * 64
    for size, padded, pad in zip(shape, plan.shape, plan.padding, strict=True):
        assert padded == size + sum(pad)
        assert 0 <= pad[1] - pad[0] <= 1
        assert (padded - 64) % 16 == 0


def test_a_size_that_fits_gets_a_whole_stride_more():
    assert tiling.plan_windows((128, 128), kernel=64, stride=16).shape == (144, 144)


@pytest.mark.parametrize("shape", [(50, 90), (20, 33)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_averaging_what_passes_through_gives_the_slice_back(shape, batch_size):
    image = np.random.default_rng(0).random(shape, np.float32)
    plan = tiling.plan_windows(shape, kernel=32, stride=8)
    prob = tiling.predict_plane(lambda x: x, image, plan=plan, batch_size=batch_size)
    np.testing.assert_allclose(prob[..., 0], image, atol=1e-6)


def test_full_resolution_windows_are_shrunk_and_enlarged():
    image = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(128, 0)
    plan = tiling.plan_windows(image.shape, kernel=64, stride=16)
    seen = []

    def network(x):
        seen.append(x.shape)
        return x

    forward = tiling.window_forward(network, input_size=16)
    prob = tiling.predict_plane(lambda x: forward(jnp.asarray(x)), image, plan=plan, batch_size=4)
    assert set(seen) == {(4, 16, 16, 1)}
    np.testing.assert_allclose(prob[..., 0], image, atol=0.02)


def test_masks():
    prob = np.asarray([[[0.5, 0.6], [0.51, 0.2]]], np.float32)
    np.testing.assert_array_equal(tiling.to_mask(prob), [[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(tiling.to_mask(prob, exclusive=True), [[1, 0]])
