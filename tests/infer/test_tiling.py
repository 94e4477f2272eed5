import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.infer import tiling, windows


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (10, 200), (1, 65)])
def test_windows_cover_every_pixel(shape):
    plan = windows.plan_windows(shape, kernel=64, stride=16)
    assert plan.total.min() >= 1
    assert plan.total.sum() == len(plan.corners) * 64 * 64
    for size, padded, pad in zip(shape, plan.shape, plan.padding, strict=True):
        assert padded == size + sum(pad)
        assert 0 <= pad[1] - pad[0] <= 1
        assert (padded - 64) % 16 == 0


def test_a_size_that_fits_gets_a_whole_stride_more():
    assert windows.plan_windows((128, 128), kernel=64, stride=16).shape == (144, 144)


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (100, 70), (10, 200), (1, 65), (97, 49)])
def test_tiles_are_few_and_keep_every_pixel_away_from_their_edges(shape):
    plan = windows.plan_tiles(shape, kernel=64)
    assert len(plan.corners) == np.prod([-(-size // 48) for size in shape])
    (top, _), (left, _) = plan.padding
    assert plan.total[top : top + shape[0], left : left + shape[1]].min() >= 1
    assert plan.weight[:8].max() == plan.weight[:, -8:].max() == 0
    assert (plan.corners >= 0).all()
    assert (plan.corners + 64 <= plan.shape).all()


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (500, 33)])
def test_a_whole_slice_is_one_window(shape):
    plan = windows.plan_whole(shape)
    assert plan.corners.tolist() == [[0, 0]] and plan.kernel == plan.shape
    assert all(size % 32 == 0 for size in plan.kernel)
    assert min(map(min, plan.padding)) >= 32


PLANS = {
    "window": lambda shape: windows.plan_windows(shape, kernel=32, stride=8),
    "gaussian": lambda shape: windows.plan_windows(
        shape, kernel=32, stride=16, blending=windows.GAUSSIAN
    ),
    "tiles": lambda shape: windows.plan_tiles(shape, kernel=32),
    "whole": windows.plan_whole,
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("shape", [(50, 90), (40, 33)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_averaging_what_passes_through_gives_the_slices_back(plan, shape, batch_size):
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    prob = tiling.predict_planes(lambda x: x, images, plan=plan(shape), batch_size=batch_size)
    np.testing.assert_allclose(prob[..., 0], images, atol=1e-6)


def test_gaussian_windows_count_by_the_distance_from_their_middle():
    plan = windows.plan_windows((64, 64), kernel=32, stride=16, blending=windows.GAUSSIAN)
    images = np.zeros((1, 64, 64), np.float32)
    numbers = iter(range(100))
    prob = tiling.predict_planes(
        lambda x: jnp.full(x.shape, next(numbers), jnp.float32),
        images,
        plan=plan,
        batch_size=1,
    )
    # In the very middle of a window its neighbours, half a side away, hardly count.
    (top, _), (left, _) = plan.padding
    for number, (y, x) in enumerate(plan.corners):
        y, x = y + 16 - top, x + 16 - left
        if 0 <= y < 64 and 0 <= x < 64:
            assert abs(float(prob[0, y, x, 0]) - number) < 0.2


def test_full_resolution_windows_are_shrunk_and_enlarged():
    image = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(128, 0)
    plan = windows.plan_windows((128, 128), kernel=64, stride=16)
    seen = []

    def network(x):
        seen.append(x.shape)
        return x

    forward = tiling.window_forward(network, input_size=16)
    prob = tiling.predict_planes(forward, image[None], plan=plan, batch_size=4)
    assert set(seen) == {(4, 16, 16, 1)}
    np.testing.assert_allclose(prob[0, ..., 0], image, atol=0.02)


def test_masks():
    prob = jnp.asarray([[[0.5, 0.6], [0.51, 0.2]]], jnp.float32)
    np.testing.assert_array_equal(tiling.to_mask(prob), [[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(tiling.to_mask(prob, exclusive=True), [[1, 0]])
