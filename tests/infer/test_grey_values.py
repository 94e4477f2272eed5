"""Volumes that are darker than the one a network was trained on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.checkpoint import LATEST, open_checkpoints
from vemseg_jax.data.store.normalization import Normalization, of_volume
from vemseg_jax.data.store.volume import TRAINING, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.grey_values import grey_values
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.predictor import Method
from vemseg_jax.infer.trained import Description, load_trained
from vemseg_jax.train.loop import train

SIZE = (36, 42)


def changed(source, path, change, dtype=np.uint8):
    """A copy without labels whose grey values are others."""
    images = open_volume(source).image(TRAINING).read().result().astype(float)
    images = np.clip(np.round(change(images)), 0, np.iinfo(dtype).max).astype(dtype)
    options = {"voxel_size": (40, 40, 40), "downsample": 1}
    with create_volume(path, shape=images.shape, dtype=dtype, **options) as writer:
        for z, plane in enumerate(images):
            writer.write(z, plane)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    volume = write_volume(folder / "v.zarr", size=SIZE)
    config = small_config(volume, steps=30, eval_every=0, checkpoint_every=30)
    config.optimizer = dataclasses.replace(config.optimizer, learning_rate=1e-2)
    config.data = dataclasses.replace(config.data, z_range=(0, 5), num_val_slices=0)
    train(config, folder / "run")
    return volume, folder / "run"


def _predicted(volume, workdir, normalization, suffix="_pred"):
    options = PredictOptions(normalization=normalization, suffix=suffix, method=Method("whole"))
    (name,) = predict_volume(volume, workdir, options=options, overwrite=True).names
    return open_volume(volume).label(name, TRAINING).read().result()


def _dice(a, b):
    return 2 * np.sum(a * b, dtype=float) / (a.sum(dtype=float) + b.sum(dtype=float))


@pytest.fixture(scope="module")
def expected(trained):
    found = _predicted(*trained, "training")
    assert 0.05 < found.mean() < 0.6
    return found


@pytest.mark.parametrize(
    "change, dtype",
    [
        (lambda x: 0.6 * x, np.uint8),
        (lambda x: 0.5 * x + 15, np.uint8),
        (lambda x: 16 * x, np.uint16),
    ],
    ids=["0.6 of the brightness", "gain and offset", "12 bit in 16"],
)
def test_a_volume_is_normalised_by_its_own_statistics(trained, expected, tmp_path, change, dtype):
    other = changed(trained[0], tmp_path / "other.zarr", change, dtype)
    assert _dice(_predicted(other, trained[1], "volume"), expected) > 0.97


def test_by_the_trainings_statistics_a_darker_volume_is_lost(trained, expected, tmp_path):
    other = changed(trained[0], tmp_path / "other.zarr", lambda x: 0.6 * x)
    assert _dice(_predicted(other, trained[1], "training"), expected) < 0.9


def test_the_training_volume_is_normalised_as_in_training(trained, expected):
    volume, description = open_volume(trained[0]), load_trained(trained[1], None).description
    own = grey_values("volume", volume, description)
    # Its slice 5 lies outside of the training's range.
    assert own.used == description.normalization == own.trained != of_volume(volume)
    assert not own.differ
    np.testing.assert_array_equal(_predicted(*trained, "volume", "_own"), expected)


def test_slices_of_other_brightness_each_by_its_own(trained, expected, tmp_path):
    factors = np.linspace(1, 0.5, 6)[:, None, None]
    other = changed(trained[0], tmp_path / "other.zarr", lambda x: x * factors)
    assert _dice(_predicted(other, trained[1], "slice"), expected) > 0.95


def test_a_constant_slice_stays_finite(trained, tmp_path):
    def one_flat(images):
        images[2] = 90
        images[3] = 90 + (np.indices(images[3].shape).sum(0) % 2)
        return images

    path = changed(trained[0], tmp_path / "flat.zarr", one_flat)
    volume, description = open_volume(path), load_trained(trained[1], None).description
    planes = volume.image(TRAINING)[2:4].read().result()
    images, left = grey_values("slice", volume, description).of((2, 3), planes)
    assert left is None and np.abs(images).max() < 0.5
    # Such slices do not count for the volume either.
    shown = [z for z in range(6) if z != 2]
    assert of_volume(volume).mean == pytest.approx(volume.slice_mean[shown].mean())


def test_the_choice_is_recorded_and_warned_of(trained, tmp_path, capsys):
    other = changed(trained[0], tmp_path / "dark.zarr", lambda x: 0.6 * x)
    _predicted(other, trained[1], "volume")
    said = capsys.readouterr().out
    assert "grey values normalised by the volume's own mean" in said
    assert "warning: the volume's grey values (mean" in said
    record = open_volume(other).label_info("nuclei_pred")["normalization"]
    assert record["by"] == "volume"
    assert record["mean"] == pytest.approx(of_volume(open_volume(other)).mean)
    header = other / "labels" / "nuclei_pred" / "ledger" / "header.json"
    assert json.loads(header.read_text())["parts"]["normalization"] == record
    with pytest.raises(InputError, match=r"normalization.by: 'volume' -> 'training'"):
        predict_volume(other, trained[1], options=PredictOptions(normalization="training"))
    capsys.readouterr()
    _predicted(trained[0], trained[1], "volume", "_quiet")
    assert "warning" not in capsys.readouterr().out
    with pytest.raises(InputError, match="--normalization=own: must be one of volume, training"):
        predict_volume(other, trained[1], options=PredictOptions(normalization="own"))


def test_checkpoints_of_earlier_versions_are_read(trained, tmp_path):
    with open_checkpoints(trained[1]) as checkpoints:
        meta = checkpoints.meta(LATEST)
    for name in ("volume_normalizations", "identities", "marks"):
        del meta[name]
    meta["other_volumes"] = [["abc", [1, 2]]]
    old = Description.from_meta(meta)
    # They normalised every volume alike.
    assert old.normalizations == (old.normalization,) * 2
    assert old.normalization_in("abc") == old.normalization
    assert old.normalization_in("another") is None
    copy = shutil.copytree(trained[0], tmp_path / "copy.zarr")
    assert grey_values("volume", open_volume(copy), old).used == old.normalization


def test_each_training_volume_has_its_own():
    one, other = Normalization(0.5, 0.1, 255), Normalization(0.2, 0.05, 65535)
    description = _description(one, other)
    assert description.normalizations == (one, other)
    assert description.normalization_in("b") == other


def _description(*own):
    return Description(
        model=None,
        structures=("nuclei",),
        crop_size=32,
        downsample=1,
        voxel_size=(1, 1, 1),
        normalization=Normalization(0.3, 0.1, 255),
        precision="float32",
        train_slices=(0,),
        val_slices=(),
        volume="a.zarr",
        fingerprint="a",
        config={},
        other_volumes=(("b", (1,)),),
        volume_normalizations=own,
    )
