"""Training slices are no test slices, in whatever copy of the volume they are met."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.infer.test_grey_values import changed
from tests.train.runs import small_config, write_volume
from vemseg_jax.config import CPSConfig
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.volume import TRAINING, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.infer.seen import seen_slices
from vemseg_jax.train.batches import find_split, other_volumes
from vemseg_jax.train.setup import describe

DEPTH = 8


@pytest.fixture
def volume(tmp_path):
    return write_volume(tmp_path / "v.zarr", depth=DEPTH, labelled=(0, 2, 5, 7), size=(36, 42))


def _description(path, *, method="supervised", others=(), **data):
    config = small_config(path)
    config.train.batch_size = 8
    config.data = dataclasses.replace(config.data, other_volumes=tuple(map(str, others)), **data)
    config.cps = CPSConfig(method=method)
    opened = open_volume(path)
    return describe(config, opened, find_split(opened, config), other_volumes(opened, config))


def _equalized(source, path):
    return preprocess(source, path, PreprocessOptions(histogram="equalize"))


def test_in_copies_preprocessed_copies_and_other_conversions(volume, tmp_path):
    description = _description(volume)
    expected = (description.train_slices, description.val_slices)
    assert expected == ((0, 2, 7), (5,))
    once = _equalized(volume, tmp_path / "once.zarr")
    twice = preprocess(once, tmp_path / "twice.zarr", PreprocessOptions(histogram="clahe"))
    moved = shutil.copytree(volume, tmp_path / "moved.zarr")
    dark = changed(volume, tmp_path / "dark.zarr", lambda x: 0.6 * x)
    for path in (volume, once, twice, moved, dark):
        seen = seen_slices(description, open_volume(path))
        assert (seen.training, seen.validation) == expected, path
        assert seen.unlabelled == () and seen.known_by and not seen.doubts
    another = write_volume(tmp_path / "another.zarr", depth=DEPTH, seed=1, size=(36, 42))
    seen = seen_slices(description, open_volume(another))
    assert not seen.training and not seen.validation and not seen.known_by and not seen.doubts


def test_trained_on_a_copy_and_met_in_the_original(volume, tmp_path):
    copies = [_equalized(volume, tmp_path / f"{n}.zarr") for n in ("a", "b")]
    description = _description(copies[0])
    for path in (volume, copies[1]):
        assert seen_slices(description, open_volume(path)).training == (0, 2, 7)


def test_in_a_part_of_the_volume_and_turned_over(volume, tmp_path):
    description = _description(volume)
    images = open_volume(volume).image(TRAINING).read().result()
    for name, part, training, validation in (
        ("part", images[1:6], (1,), (4,)),
        ("over", images[::-1], (0, 5, 7), (2,)),
    ):
        path = tmp_path / f"{name}.zarr"
        options = {"dtype": np.uint8, "voxel_size": (40, 40, 40), "downsample": 1}
        with create_volume(path, shape=part.shape, **options) as writer:
            for z, plane in enumerate(part):
                writer.write(z, plane)
        seen = seen_slices(description, open_volume(path))
        assert (seen.training, seen.validation) == (training, validation)


def test_images_that_were_seen_without_labels(volume, tmp_path):
    description = _description(volume, method="cps", z_range=(0, 6), num_val_slices=1)
    seen = seen_slices(description, open_volume(volume))
    assert seen.training == (0, 5) and seen.validation == (2,)
    assert seen.unlabelled == (1, 3, 4)
    copy = _equalized(volume, tmp_path / "copy.zarr")
    assert seen_slices(description, open_volume(copy)).unlabelled == (1, 3, 4)


def test_of_several_volumes(volume, tmp_path):
    other = write_volume(tmp_path / "other.zarr", depth=4, labelled=(1, 2), size=(36, 42), seed=1)
    description = _description(volume, method="cps", others=[other])
    copy = _equalized(other, tmp_path / "copy.zarr")
    seen = seen_slices(description, open_volume(copy))
    assert (seen.training, seen.validation, seen.unlabelled) == ((1, 2), (), (0, 3))


def test_a_checkpoint_of_an_earlier_version(volume, tmp_path):
    """It recorded a fingerprint; what it was made from stands in the training volume itself."""
    copy = _equalized(volume, tmp_path / "copy.zarr")
    old = dataclasses.replace(_description(copy), identities=(), marks=())
    assert seen_slices(old, open_volume(volume)).training == (0, 2, 7)
    shutil.rmtree(copy)
    assert seen_slices(old, open_volume(volume)).training == ()
    old = dataclasses.replace(_description(volume), identities=(), marks=())
    moved = shutil.move(volume, tmp_path / "moved.zarr")
    copy = _equalized(moved, tmp_path / "copy.zarr")
    assert seen_slices(old, open_volume(copy)).training == (0, 2, 7)


def test_in_doubt_the_slices_are_named(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for n in (0, 1):
        paths.append(tmp_path / f"{n}.zarr")
        with create_volume(
            paths[n],
            shape=(DEPTH, 36, 42),
            dtype=np.uint8,
            voxel_size=(40, 40, 40),
            downsample=1,
            source="/data/tiffs",
        ) as writer:
            for z in range(DEPTH):
                writer.write(z, rng.integers(0, 256, (36, 42), np.uint8))
        with create_label(paths[n], "nuclei") as label:
            for z in (0, 2, 5):
                label.write_mask(z, np.eye(36, 42, dtype=np.uint8))
    seen = seen_slices(_description(paths[0]), open_volume(paths[1]))
    assert seen.training == ()
    (doubt,) = seen.doubts
    assert (doubt.volume, doubt.slices) == (str(paths[0]), (0, 2, 5))
    (line,) = seen.lines()
    assert "the same source, /data/tiffs" in line and "vemseg-evaluate" in line
