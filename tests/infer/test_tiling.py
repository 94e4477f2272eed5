import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.infer import tiling, windows
from vemseg_jax.resize import resize_bilinear


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (10, 200), (1, 65)])
def test_windows_cover_every_pixel(shape):
    plan = windows.plan_windows(shape, kernel=64, stride=16).over()
    assert plan.total.min() >= 1
    assert plan.total.sum() == len(plan.corners) * 64 * 64
    for size, padded, pad in zip(shape, plan.shape, plan.padding, strict=True):
        assert padded == size + sum(pad)
        assert 0 <= pad[1] - pad[0] <= 1
        assert (padded - 64) % 16 == 0


def test_a_size_that_fits_gets_a_whole_stride_more():
    assert windows.plan_windows((128, 128), kernel=64, stride=16).over().shape == (144, 144)


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (100, 70), (10, 200), (1, 65), (97, 49)])
def test_tiles_are_few_and_keep_every_pixel_away_from_their_edges(shape):
    plan = windows.plan_tiles(shape, kernel=64).over()
    assert len(plan.corners) == np.prod([-(-size // 48) for size in shape])
    (top, _), (left, _) = plan.padding
    assert plan.total[top : top + shape[0], left : left + shape[1]].min() >= 1
    assert plan.weight[:8].max() == plan.weight[:, -8:].max() == 0
    assert (plan.corners >= 0).all()
    assert (plan.corners + 64 <= plan.shape).all()


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (500, 33)])
def test_a_whole_slice_is_one_window(shape):
    plan = windows.plan_whole(shape).over()
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
    prob = tiling.predict_planes(
        lambda x: x, images, plan=plan(shape).over(), batch_size=batch_size
    )
    np.testing.assert_allclose(prob[..., 0], images, atol=1e-6)


def test_gaussian_windows_count_by_the_distance_from_their_middle():
    plan = windows.plan_windows((64, 64), kernel=32, stride=16, blending=windows.GAUSSIAN).over()
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


def test_full_resolution_slices_are_shrunk_once_and_windows_enlarged():
    image = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(128, 0)
    plan = windows.plan_windows((128, 128), kernel=64, stride=16).over()
    seen = []

    def network(variables, x, train):
        seen.append(x.shape)
        return {"prob": x}

    forward = tiling.make_forward(network, {}, scale=4)
    prob = tiling.predict_planes(forward, image[None], plan=plan, batch_size=4, scale=4)
    assert set(seen) == {(4, 16, 16, 1)}
    # What the reference does: each window shrunk by itself.
    padded = jnp.asarray(np.pad(image, plan.padding, mode="reflect"))
    total = np.zeros(plan.shape, np.float32)
    for y, x in plan.corners:
        small = resize_bilinear(padded[None, y : y + 64, x : x + 64, None], (16, 16))
        total[y : y + 64, x : x + 64] += np.asarray(resize_bilinear(small, (64, 64)))[0, ..., 0]
    (y0, y1), (x0, x1) = plan.inner
    expected = (total / plan.total)[y0:y1, x0:x1]
    np.testing.assert_allclose(prob[0, ..., 0], expected, atol=1e-6)


BOXES = {
    "window": (lambda shape: windows.plan_windows(shape, kernel=32, stride=8), 1),
    "gaussian": (
        lambda shape: windows.plan_windows(shape, kernel=32, stride=16, blending=windows.GAUSSIAN),
        1,
    ),
    "tiles": (lambda shape: windows.plan_tiles(shape, kernel=32), 1),
    "full resolution": (lambda shape: windows.plan_windows(shape, kernel=32, stride=8), 4),
}


@pytest.mark.parametrize(("make", "scale"), BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("halo", [0, 3])
def test_a_box_takes_the_windows_that_count_in_it_and_comes_out_the_same(make, scale, halo):
    shape = (91, 150)
    image = np.random.default_rng(0).random((2, *shape)).astype(np.float32)

    def network(variables, x, train):
        # Not the same everywhere in a window: each box must cut the same ones.
        return {"prob": x * jnp.linspace(0, 1, x.shape[1])[:, None, None] + x.mean((1, 2, 3))[0]}

    forward = tiling.make_forward(network, {}, scale=scale)
    planner = make(shape)

    def run(plan):
        (y0, y1), (x0, x1) = plan.source
        options = {"plan": plan, "batch_size": 1, "scale": scale}
        return np.asarray(tiling.predict_planes(forward, image[:, y0:y1, x0:x1], **options))

    whole = run(planner.over())
    for box in [((0, 40), (0, 64)), ((40, 91), (64, 128)), ((40, 80), (128, 150))]:
        plan = planner.over(box, halo=halo)
        assert len(plan.corners) < len(planner.over().corners)
        (y0, y1), (x0, x1) = windows.grown(box, halo, shape)
        np.testing.assert_array_equal(run(plan), whole[:, y0:y1, x0:x1])


def test_parts_of_a_slice_see_their_neighbours():
    planner = windows.plan_whole((700, 300), part=(256, 512))
    plans = [planner.over(((y, min(y + 256, 700)), (0, 300)), halo=1) for y in (0, 256, 512)]
    assert {plan.kernel for plan in plans} == {(512, 384)}
    assert [len(plan.corners) for plan in plans] == [1, 1, 1]
    assert [plan.source[0] for plan in plans] == [(0, 384), (128, 640), (384, 700)]
    assert [plan.inner[0] for plan in plans] == [(128, 385), (127, 385), (127, 316)]
    with pytest.raises(ValueError, match="several parts"):
        planner.over(((0, 300), (0, 300)))


def test_a_window_is_averaged_with_its_mirror_images():
    image = np.random.default_rng(0).random((1, 32, 32)).astype(np.float32)
    ramp = jnp.arange(32.0)[:, None, None] + 2 * jnp.arange(32.0)[:, None]

    def network(variables, x, train):
        return {"prob": x * ramp}

    plan = windows.plan_tiles((24, 24), kernel=32).over()
    forward = tiling.make_forward(network, {}, flips=True)
    prob = tiling.predict_planes(forward, image[:, :24, :24], plan=plan, batch_size=1)
    # The mean of the ramp and its mirror images is the same everywhere.
    expected = image[0, :24, :24] * (15.5 + 31)
    np.testing.assert_allclose(prob[0, ..., 0], expected, rtol=1e-6)


def test_masks():
    prob = jnp.asarray([[[0.5, 0.6], [0.51, 0.2]]], jnp.float32)
    np.testing.assert_array_equal(tiling.to_mask(prob), [[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(tiling.to_mask(prob, exclusive=True), [[1, 0]])
