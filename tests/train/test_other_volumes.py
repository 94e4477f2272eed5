"""Training on several volumes at once."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.data.crops.input_pipeline import make_batch
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.normalization import of_volume
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.train.batches import find_split, make_batches, other_volumes
from vemseg_jax.train.loop import train
from vemseg_jax.train.setup import describe


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    first = write_volume(folder / "first.zarr")
    second = write_volume(folder / "second.zarr", depth=4, labelled=(1, 2), size=(56, 44), seed=1)
    return first, second


def _config(volumes, method="supervised", **train_options):
    config = small_config(volumes[0], batch_size=8, **train_options)
    config.data = dataclasses.replace(config.data, other_volumes=(str(volumes[1]),))
    config.cps = dataclasses.replace(config.cps, method=method)
    return config


@pytest.mark.parametrize("budget", [0.0, 1e-9], ids=["resident", "streamed"])
def test_each_batch_has_as_many_crops_of_each(volumes, budget):
    config = _config(volumes, "cps")
    config.data = dataclasses.replace(config.data, memory_budget_gib=budget)
    volume = open_volume(volumes[0])
    split, others = find_split(volume, config), other_volumes(volume, config)
    assert [chosen.train for _, chosen in others] == [(1, 2)]
    alone = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, other_volumes=()),
        train=dataclasses.replace(config.train, batch_size=4),
    )
    with (
        make_batches(volume, config, split, others=others) as both,
        make_batches(volume, alone, split) as first,
    ):
        planes, crops = both(0)
        assert [[len(c.plane) for c in kind] for kind in crops] == [[2, 2], [2, 2]]
        labelled, _ = planes
        # The first volume's crops are those that it gives alone.
        own = first(0)
        jax.tree.map(
            np.testing.assert_array_equal, (planes[0][0], crops[0][0]), (own[0][0], own[1][0])
        )
        assert labelled[1].image.dtype == np.uint8


@pytest.mark.parametrize("method", ["supervised", "cps_cutmix"])
def test_training_on_two_volumes(volumes, tmp_path, method):
    config = _config(volumes, method, steps_per_dispatch=2, steps=4, eval_every=0)
    state = train(config, tmp_path)
    assert int(state.step) == 4
    description = load_trained(tmp_path, "latest").description
    assert description.num_train_slices == 2 + 2
    one, other = (open_volume(path) for path in volumes)
    means = np.concatenate([one.slice_mean, other.slice_mean])
    assert description.normalization.mean == pytest.approx(means.mean())
    # Each is normalised by its own statistics, as it is when it is predicted.
    assert description.normalizations == (of_volume(one), of_volume(other))
    # Slices that took part in training are known in both.
    (name,) = predict_volume(volumes[1], tmp_path, overwrite=True).names
    assert open_volume(volumes[1]).label_info(name)["training_slices"] == [1, 2]


@pytest.mark.parametrize("budget", [0.0, 1e-9], ids=["resident", "streamed"])
def test_crops_are_normalised_by_their_volumes_own_statistics(volumes, tmp_path, budget):
    """A darker one, of another type, looks like the first: of 16 bit, 12 of them used."""
    images = open_volume(volumes[0]).image("training").read().result()
    mask = open_volume(volumes[0]).label("nuclei", "training")[2].read().result()
    dark = tmp_path / "dark.zarr"
    options = {"dtype": np.uint16, "voxel_size": (40, 40, 40), "downsample": 1}
    with create_volume(dark, shape=images.shape, **options) as writer:
        for z, plane in enumerate(images[::-1]):
            writer.write(z, plane.astype(np.uint16) * 10)
    with create_label(dark, "nuclei") as label:
        for z in (0, 3, 5):
            label.write_mask(z, mask)
    config = _config((volumes[0], dark))
    config.data = dataclasses.replace(config.data, memory_budget_gib=budget)
    volume = open_volume(volumes[0])
    split, others = find_split(volume, config), other_volumes(volume, config)
    description = describe(config, volume, split, others)
    assert [norm.dtype_max for norm in description.normalizations] == [255, 65535]
    with make_batches(volume, config, split, others=others) as batches:
        planes, crops = batches(0)
    batch = make_batch(planes, crops, crop_size=32, normalization=description.normalizations)
    for half in (batch.image[:4], batch.image[4:]):
        assert abs(float(half.mean())) < 0.5 and 0.7 < float(half.std()) < 1.4


def test_held_out_slices_do_not_train_in_a_copy(volumes, tmp_path, caplog):
    copy = preprocess(volumes[0], tmp_path / "copy.zarr", PreprocessOptions(histogram="equalize"))
    config = _config((volumes[0], copy))
    volume = open_volume(volumes[0])
    assert find_split(volume, config).val == (2,)
    with caplog.at_level("WARNING", logger="absl"):
        ((_, split),) = other_volumes(volume, config)
    assert split.train == (0, 5)
    assert "slices [2] are held out there and do not train here" in caplog.text


def test_a_third_volume_has_no_training_slices(volumes, tmp_path):
    third = write_volume(tmp_path / "third.zarr", depth=2, labelled=(0,), seed=3)
    train(_config(volumes, steps=2), tmp_path / "run")
    (name,) = predict_volume(third, tmp_path / "run").names
    assert open_volume(third).label_info(name)["training_slices"] == []


def test_an_earlier_versions_run_goes_on(volumes, tmp_path):
    config = small_config(volumes[0])
    train(config, tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    del saved["data"]["other_volumes"], saved["train"]["devices"]
    path.write_text(json.dumps(saved))
    train(config, tmp_path)
    del saved["data"]["crop_size"]
    path.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"data\.crop_size: 512 -> 32"):
        train(config, tmp_path)


@pytest.mark.parametrize(
    "section, field, value, message",
    [
        ("data", "z_range", (0, 3), r"data.z_range is \(0, 3\)"),
        ("data", "train_slices", (0, 2), r"data.train_slices is \(0, 2\)"),
        ("train", "batch_size", 5, "a multiple of 2: as many crops of each volume"),
    ],
)
def test_what_is_numbered_in_one_volume_is_refused(
    volumes, tmp_path, section, field, value, message
):
    config = _config(volumes)
    setattr(getattr(config, section), field, value)
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run")


def test_a_volume_twice_and_one_of_another_kind_are_refused(volumes, tmp_path):
    config = _config((volumes[0], volumes[0]))
    with pytest.raises(InputError, match="paths that differ"):
        train(config, tmp_path / "run")
    fine = write_volume(tmp_path / "fine.zarr", downsample=4)
    with pytest.raises(InputError, match=r"downsampled by 4, .*first.zarr 1"):
        train(_config((volumes[0], fine)), tmp_path / "run")
