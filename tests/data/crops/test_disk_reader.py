import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.data.crops.disk_reader import WindowReader
from vemseg_jax.data.crops.input_pipeline import make_batch
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.downsample import downsample_ignore
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.train.batches import find_split, make_batches

GOLDEN = Path(__file__).parents[2] / "golden" / "downsample.npz"
NORMALIZATION = Normalization(mean=0.4, std=0.2, dtype_max=255)
ONE_BYTE = 1e-9


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Nuclei on slices 0, 2 and 5, a second structure on 2 alone, an ignored strip."""
    path = write_volume(tmp_path_factory.mktemp("data") / "v.zarr", downsample=4)
    mask = np.zeros((160, 192), np.uint8)
    mask[150:, 185:] = 1
    with create_label(path, "corner") as label:
        label.write_mask(2, mask)
    with create_label(path, "ignore", kind="ignore") as label:
        strip = np.zeros((160, 192), np.uint8)
        strip[40:47, 20:150] = 1
        for z in range(6):
            label.write(z, FULL, strip)
            label.write(z, "training", downsample_ignore(strip))
    return path


def _config(path, *, crop_size=32, structures=("nuclei", "corner"), method="cps", **data):
    config = small_config(path, batch_size=8)
    config.data = dataclasses.replace(
        config.data, crop_size=crop_size, structures=structures, num_val_slices=0, **data
    )
    config.cps.method = method
    return config


def _batches(path, steps=6, **options):
    """The normalised batches of some steps, labelled and unlabelled, and whether streamed."""
    config, volume = _config(path, **options), open_volume(path)
    with make_batches(volume, config, find_split(volume, config)) as batches:
        return [
            [
                make_batch(*each, crop_size=config.data.crop_size, normalization=NORMALIZATION)
                for each in zip(*batches(step), strict=True)
            ]
            for step in range(steps)
        ], batches.streamed


@pytest.mark.parametrize("crop_size", [16, 32, 64])
def test_crops_are_the_same_whether_slices_are_held_or_read(volume, crop_size):
    held, streamed = _batches(volume, crop_size=crop_size)
    assert not streamed
    read, streamed = _batches(volume, crop_size=crop_size, memory_budget_gib=ONE_BYTE)
    assert streamed
    jax.tree.map(np.testing.assert_array_equal, held, read)
    labelled = [batch[0] for batch in read]
    assert any((batch.seen == 0).any() for batch in labelled)
    assert any((batch.valid[..., 1] == 0).all((1, 2)).any() for batch in labelled)
    # With structures drawn evenly, every crop holds one of them.
    assert all((batch.target.max((1, 2)) == 1).any(-1).all() for batch in labelled)


def test_labelled_slices_are_held_before_unlabelled_ones(volume):
    opened = open_volume(volume)
    # 3 labelled slices of 40 x 48 with two labels and the ignore mask take 23 kB.
    config = _config(volume, memory_budget_gib=25_000 / 2**30)
    with make_batches(opened, config, find_split(opened, config)) as batches:
        assert [source.streamed for source in batches._sources] == [False, True]
        assert batches.streamed


def test_steps_may_be_asked_for_in_any_order(volume):
    config, opened = _config(volume, memory_budget_gib=ONE_BYTE), open_volume(volume)
    with make_batches(opened, config, find_split(opened, config)) as batches:
        there = [jax.device_get(batches(step)) for step in (0, 1, 2)]
        again = [jax.device_get(batches(step)) for step in (2, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, there, [again[1], again[2], again[0]])


def test_exact_offsets_are_downsampled_from_full_resolution(volume):
    opened = open_volume(volume)
    reader = WindowReader(
        opened, ("nuclei", "corner"), (5, 2), crop_size=16, exact_offsets=True, cache_bytes=2**20
    )
    assert reader.window == 64 and reader.size == (160, 192)
    corners = np.asarray([[3, 17], [96, 128], [38, 21]], np.int32)
    crops = Crops(np.asarray([0, 1, 1], np.int32), corners, np.zeros(3, np.int32))
    planes = reader(crops)
    for b, (z, (y, x)) in enumerate(zip((5, 2, 2), corners, strict=True)):
        image = opened.image(FULL)[z, y : y + 64, x : x + 64].read().result().astype(float)
        blocks = image.reshape(16, 4, 16, 4)[:, 1:3, :, 1:3].mean((1, 3))
        np.testing.assert_array_equal(planes.image[b], blocks)
        ignored = opened.label("ignore", FULL)[z, y : y + 64, x : x + 64].read().result()
        ignored = ignored.reshape(16, 4, 16, 4)[:, 1:3, :, 1:3].max((1, 3))
        np.testing.assert_array_equal(planes.ignored[b], ignored)
        mask = opened.label("nuclei", FULL)[z, y : y + 64, x : x + 64].read().result()
        mask = mask.reshape(16, 4, 16, 4)[:, 1:3, :, 1:3].sum((1, 3)) >= 3
        expected = np.where(ignored == 1, 255, mask)
        np.testing.assert_array_equal(planes.label[b, ..., 0], expected)
    assert np.all(planes.label[0, ..., 1] == 255)
    assert planes.label[1, ..., 1].sum() > 0
    assert planes.ignored[2].any()


def test_exact_offsets_equal_the_reference(tmp_path):
    golden = np.load(GOLDEN)
    images, expected = golden["image_uint8"][:, 0], golden["image_down"][:, 0]
    options = {"dtype": np.uint8, "voxel_size": (40, 10, 10), "downsample": 4}
    with create_volume(tmp_path / "v.zarr", shape=images.shape, **options) as writer:
        for z, image in enumerate(images):
            writer.write(z, image)
    with create_label(tmp_path / "v.zarr", "mask") as label:
        label.write_mask(0, golden["mask01"][0, 0])
    reader = WindowReader(
        open_volume(tmp_path / "v.zarr"),
        ("mask",),
        (0, 1),
        crop_size=64,
        exact_offsets=True,
        cache_bytes=2**20,
    )
    corner = np.zeros((2, 2), np.int32)
    planes = reader(Crops(np.asarray([0, 1], np.int32), corner, corner[0]))
    np.testing.assert_allclose(planes.image / 255, expected, atol=1e-6)
    np.testing.assert_array_equal(planes.label[0, ..., 0], golden["mask01_down"][0])


def test_exact_offsets_reach_every_position_and_hold_the_structure(volume):
    batches, streamed = _batches(volume, exact_offsets=True, structures=("nuclei",), steps=30)
    assert streamed
    held = np.concatenate([batch.target.max((1, 2, 3)) for batch, _ in batches])
    assert held.mean() > 0.95
    opened = open_volume(volume)
    config = _config(volume, exact_offsets=True, structures=("nuclei",))
    with make_batches(opened, config, find_split(opened, config)) as source:
        corners = np.concatenate(
            [each._sampler(step).corner for each in source._sources for step in range(40)]
        )
    assert set(np.unique(corners % 4)) == {0, 1, 2, 3}


def test_a_damaged_chunk_ends_training_with_its_file(volume, tmp_path):
    path = write_volume(tmp_path / "damaged.zarr")
    shard = path / "0" / "c" / "3" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:50])
    config, opened = (
        _config(path, structures=("nuclei",), memory_budget_gib=ONE_BYTE),
        open_volume(path),
    )
    with (
        make_batches(opened, config, find_split(opened, config)) as batches,
        pytest.raises(InputError, match=r"slice 3 is damaged"),
    ):
        for step in range(5):
            batches(step)


def test_held_out_slices_damaged_on_disk_are_found_before_training(tmp_path):
    from vemseg_jax.train.loop import train

    path = write_volume(tmp_path / "damaged.zarr")
    shard = path / "0" / "c" / "2" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InputError, match=r"slice 2 is damaged"):
        train(small_config(path), tmp_path / "run")
    assert not list((tmp_path / "run").glob("log.jsonl"))
