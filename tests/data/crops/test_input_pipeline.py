import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.data.crops import input_pipeline
from vemseg_jax.data.crops.augment import flip_turn
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.normalization import Normalization, combine, slice_statistics
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.data.store.volume_writer import create_volume

NORMALIZATION = Normalization(mean=0.5, std=0.25, dtype_max=255)


def test_the_eight_symmetries_differ_and_keep_the_pixels():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    turned = flip_turn(jnp.repeat(x, 8, 0), jnp.arange(8))
    assert len({tuple(np.ravel(image)) for image in turned}) == 8
    assert all(sorted(np.ravel(image)) == list(range(9)) for image in turned)
    expected = {tuple(np.ravel(np.rot90(x[0, ..., 0], k))) for k in range(4)}
    assert expected <= {tuple(np.ravel(image)) for image in turned}


def test_batch_holds_the_crops_it_was_told_to():
    rng = np.random.default_rng(0)
    planes = input_pipeline.Planes(
        image=rng.integers(0, 256, (3, 20, 24), np.uint8),
        label=rng.choice(np.asarray([0, 1, 255], np.uint8), (3, 20, 24, 2)),
    )
    crops = Crops(
        plane=np.asarray([2, 0]), corner=np.asarray([[3, 5], [12, 16]]), symmetry=np.asarray([0, 1])
    )
    batch = jax.jit(
        lambda p, c: input_pipeline.make_batch(p, c, crop_size=8, normalization=NORMALIZATION)
    )(planes, crops)
    image = (planes.image[2, 3:11, 5:13] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(batch.image[0, ..., 0], image, atol=1e-6)
    label = planes.label[0, 12:20, 16:24][:, ::-1]
    np.testing.assert_array_equal(batch.target[1], label == 1)
    np.testing.assert_array_equal(batch.valid[1], label != 255)


def test_small_slices_are_mirrored_to_a_crop():
    planes = input_pipeline.Planes(
        image=np.arange(20, dtype=np.uint8).reshape(1, 4, 5),
        label=np.ones((1, 4, 5, 1), np.uint8),
    )
    padded = input_pipeline.pad_to_crop(planes, 9)
    assert padded.image.shape == (1, 9, 9) and padded.label.shape == (1, 9, 9, 1)
    np.testing.assert_array_equal(padded.image[0, 2:6, 2:7], planes.image[0])
    np.testing.assert_array_equal(padded.image[0, 1, 2:7], planes.image[0, 1])
    assert input_pipeline.pad_to_crop(planes, 4) is planes


def test_slices_without_a_label_and_ignored_pixels_read_as_unlabelled(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 40, 48), np.uint8)
    path = tmp_path / "v.zarr"
    options = {"dtype": np.uint8, "voxel_size": (40, 10, 10), "downsample": 1}
    with create_volume(path, shape=image.shape, **options) as writer:
        for z in range(4):
            writer.write(z, image[z])
    mask = np.zeros((40, 48), np.uint8)
    mask[5:9, 5:9] = 1
    for name, z in (("nuclei", 1), ("nuclei2", 2)):
        with create_label(path, name) as writer:
            writer.write_mask(z, mask)
    with create_label(path, "ignore", kind="ignore") as writer:
        writer.write_mask(1, mask[:, ::-1].copy())
    planes = input_pipeline.load_slices(open_volume(path), ("nuclei", "nuclei2"), (1, 2))
    np.testing.assert_array_equal(planes.image, image[[1, 2]])
    assert np.all(planes.label[0, ..., 1] == 255)
    assert np.all(planes.label[1, ..., 0] == 255)
    expected = np.where(mask[:, ::-1] == 1, 255, mask)
    np.testing.assert_array_equal(planes.label[0, ..., 0], expected)


def test_normalisation_averages_over_images():
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 65536, (30, 20), np.uint16), rng.integers(9, 99, (9, 9), np.uint16)]
    statistics = [slice_statistics(plane) for plane in planes]
    norm = combine(*zip(*statistics, strict=True), dtype_max=65535)
    np.testing.assert_allclose(norm.mean, np.mean([p.mean() / 65535 for p in planes]), rtol=1e-12)
    np.testing.assert_allclose(
        norm.std, np.mean([(p / 65535).std(ddof=1) for p in planes]), rtol=1e-12
    )
    assert np.isfinite(combine([0.0], [0.0], dtype_max=255)(np.zeros(3))).all()
