import numpy as np
import pytest
import tensorstore as ts

from vemseg_jax.data.store.downsample import downsample_image
from vemseg_jax.view.pyramid import Pyramid, cache, cached


def pyramid(full, *, average=True, training=True):
    coarse = ts.array(downsample_image(full)) if training else None
    return Pyramid(ts.array(full), coarse, average=average)


@pytest.fixture(scope="module")
def stack():
    return np.random.default_rng(0).integers(0, 256, (5, 61, 50), np.uint8)


def test_one_to_one_are_the_pixels(stack):
    box = pyramid(stack).read((1, 10, 20), (4, 30, 50), factors=(1, 1, 1))
    assert box.dtype == np.uint8
    np.testing.assert_array_equal(box, stack[1:4, 10:30, 20:50])


def test_a_quarter_is_the_training_level(stack):
    shape = pyramid(stack).reduced_shape((1, 4, 4))
    assert shape == (5, 16, 13)
    training = downsample_image(stack)
    box = pyramid(stack).read((0, 0, 0), shape, factors=(1, 4, 4))
    assert training.shape == (5, 15, 12)
    np.testing.assert_array_equal(box[:, :15, :12], training)
    # Too little is left at the end for another training pixel: the last one stands in.
    np.testing.assert_array_equal(box[:, 15, :12], training[:, -1])
    np.testing.assert_array_equal(box[:, :15, 12], training[:, :, -1])
    tail = pyramid(stack).read((0, 15, 12), shape, factors=(1, 4, 4))
    np.testing.assert_array_equal(tail, box[:, 15:, 12:])


def test_grey_values_are_averaged_and_slices_are_not(stack):
    box = pyramid(stack).read((0, 1, 2), (3, 5, 7), factors=(2, 2, 2))
    blocks = stack[::2, 2:10, 4:14].reshape(3, 4, 2, 5, 2).astype(float)
    np.testing.assert_array_equal(box, np.rint(blocks.mean((2, 4))))
    box = pyramid(stack).read((0, 1, 1), (3, 3, 5), factors=(2, 8, 8))
    blocks = downsample_image(stack)[::2, 2:6, 2:10].reshape(3, 2, 2, 4, 2).astype(float)
    np.testing.assert_array_equal(box, np.rint(blocks.mean((2, 4))))


def test_sections_across_slices_repeat_training_pixels(stack):
    box = pyramid(stack).read((0, 6, 3), (3, 15, 12), factors=(2, 1, 4))
    training = downsample_image(stack)
    np.testing.assert_array_equal(box, training[::2, np.arange(6, 15) // 4, 3:12])
    box = pyramid(stack).read((0, 58, 0), (3, 61, 12), factors=(2, 1, 4))
    np.testing.assert_array_equal(box, training[::2, [14, 14, 14], :12])


@pytest.mark.parametrize("training", [True, False])
def test_labels_are_not_averaged(training):
    label = np.zeros((1, 64, 64), np.uint8)
    label[:, 16:] = 255
    label[:, :, 32:] = 1
    box = pyramid(label, average=False, training=training).read(
        (0, 0, 0), (1, 4, 4), factors=(1, 16, 16)
    )
    assert box[0].tolist() == [[0, 0, 1, 1]] + 3 * [[255, 255, 1, 1]]


def test_probabilities_stay_float():
    prob = np.random.default_rng(0).random((1, 8, 8), np.float32)
    box = pyramid(prob, training=False).read((0, 0, 0), (1, 4, 4), factors=(1, 2, 2))
    assert box.dtype == np.float32
    np.testing.assert_allclose(box, prob.reshape(1, 4, 2, 4, 2).mean((2, 4)), rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "stop", "factors", "message"),
    [
        ((0, 0, 0), (1, 1, 1), (1, 3, 3), "powers of two"),
        ((0, 0, 0), (1, 1, 1), (1, 0, 1), "powers of two"),
        ((0, 0, 0), (1, 17, 1), (1, 4, 4), "box"),
        ((-1, 0, 0), (1, 1, 1), (1, 1, 1), "box"),
        ((0, 3, 0), (1, 3, 1), (1, 1, 1), "box"),
    ],
)
def test_boxes_outside_are_refused(stack, start, stop, factors, message):
    with pytest.raises(ValueError, match=message):
        pyramid(stack).read(start, stop, factors=factors)


def test_cached_arrays_are_the_same(stack, tmp_path):
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/a/"}
    array = ts.open(spec, create=True, dtype=ts.uint8, shape=stack.shape).result()
    array.write(stack).result()
    again = cached(array, cache())
    np.testing.assert_array_equal(again.read().result(), stack)
    # What was read once is not read again.
    for file in (tmp_path / "a").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.unlink()
    assert not ts.open(spec).result().read().result().any()
