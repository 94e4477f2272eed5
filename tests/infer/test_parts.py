"""Slices that are too large to be predicted at once, and what is written beside the masks."""

import dataclasses

import numpy as np
import pytest

from tests.infer import runs
from tests.train.runs import small_config, write_volume
from vemseg_jax.config import CPSConfig
from vemseg_jax.data.store.downsample import downsample_image, downsample_mask
from vemseg_jax.data.store.volume import FULL, TRAINING, open_array, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import grid
from vemseg_jax.infer.job import Job, PredictOptions
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.predictor import Method
from vemseg_jax.infer.verify import verify
from vemseg_jax.infer.work import Work
from vemseg_jax.train.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained at 4x and two slices of 540 x 600 training pixels."""
    folder = tmp_path_factory.mktemp("trained")
    small = write_volume(folder / "small.zarr", downsample=4, size=(40, 45))
    config = small_config(small, steps=24)
    # Enlarging with aligned corners depends on the extent of a part, and shows more in a network of
    # one level, which finds edges alone.
    config.model.levels = 3
    train(config, folder / "run")
    large = write_volume(
        folder / "large.zarr", depth=2, labelled=(0,), downsample=4, size=(540, 600)
    )
    return large, folder / "run"


WINDOW = Method(overlap=0.25)


@pytest.mark.parametrize("method", [WINDOW, Method("whole")], ids=["window", "whole"])
@pytest.mark.parametrize("resolution", [TRAINING, FULL])
def test_parts_of_slices_make_the_same_result(trained, monkeypatch, method, resolution):
    path, workdir = trained
    # By its own statistics the large volume would have twice the contrast: its disk is as small as
    # that of the small one, and rounding of probabilities shows where they spread.
    options = PredictOptions(
        method=method,
        resolution=resolution,
        suffix="_once",
        probabilities=True,
        normalization="training",
    )
    name = f"{method.name}_{resolution}"
    options = dataclasses.replace(options, suffix=f"_{name}_once")
    predict_volume(path, workdir, slices=(1,), options=options)
    monkeypatch.setattr(grid, "SLICE_PIXELS", 2**18)
    monkeypatch.setattr(grid, "PART", 512)
    options = dataclasses.replace(options, suffix=f"_{name}_parts")
    assert len(Work(Job(path, workdir, None, (1,), options)).grid) == 4
    predict_volume(path, workdir, slices=(1,), options=options)
    volume = open_volume(path)
    for level in {TRAINING, resolution}:
        once, parts = (
            volume.label(f"nuclei_{name}_{way}_prob", level)[1].read().result().astype(int)
            for way in ("once", "parts")
        )
        if method.name == "window":
            np.testing.assert_array_equal(parts, once)
        else:
            # What lies farther away than the margin hardly counts.
            assert np.abs(parts - once).max() <= 1
        mask = volume.label(f"nuclei_{name}_parts", level)[1].read().result()
        if level == resolution:
            sure = np.abs(parts - 127.5) > 1.5
            np.testing.assert_array_equal(mask[sure], (parts > 127)[sure])
    assert all(verdict.is_sound for verdict in verify(path))


def test_each_part_is_a_shard_of_every_array(trained, monkeypatch):
    path, workdir = trained
    monkeypatch.setattr(grid, "SLICE_PIXELS", 2**18)
    monkeypatch.setattr(grid, "PART", 512)
    options = PredictOptions(method=Method("whole"), suffix="_shards", resolution=FULL)
    predict_volume(path, workdir, options=options)
    for array in ("0", "1"):
        folder = path / "labels" / "nuclei_shards" / array / "c" / "0"
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
            "0/0",
            "0/1",
            "1/0",
            "1/1",
        ]


def test_probabilities_come_with_the_masks(trained):
    path, workdir = trained
    options = PredictOptions(
        method=Method("whole"), suffix="_soft_pred", resolution=FULL, probabilities=True
    )
    result = predict_volume(path, workdir, slices=(0,), options=options)
    assert result.names == ["nuclei_soft_pred", "nuclei_soft_prob"]
    volume = open_volume(path)
    prob = volume.label("nuclei_soft_prob", FULL)[0].read().result()
    mask = volume.label("nuclei_soft_pred", FULL)[0].read().result()
    assert len(np.unique(prob)) > 20
    np.testing.assert_array_equal(mask[prob != 128], (prob > 127)[prob != 128])
    small = volume.label("nuclei_soft_prob", TRAINING)[0].read().result()
    np.testing.assert_array_equal(small, downsample_image(prob))
    np.testing.assert_array_equal(
        volume.label("nuclei_soft_pred", TRAINING)[0].read().result(), downsample_mask(mask)
    )
    info = volume.label_info("nuclei_soft_prob")
    assert (info["kind"], info["quantity"]) == ("probability", "probability")
    assert volume.label_info("nuclei_soft_pred")["kind"] == "prediction"


def test_a_prediction_at_training_scale_has_a_coarser_array(trained):
    path, workdir = trained
    options = PredictOptions(method=Method("whole"), suffix="_two_pred", probabilities=True)
    predict_volume(path, workdir, slices=(0,), options=options)
    for name in ("nuclei_two_pred", "nuclei_two_prob"):
        fine = open_array(path / "labels" / name / "1")[0].read().result()
        coarse = open_array(path / "labels" / name / "2")[0].read().result()
        np.testing.assert_array_equal(coarse, fine[::2, ::2])


def test_where_two_networks_disagree(tmp_path):
    volume = write_volume(tmp_path / "v.zarr", depth=6)
    config = dataclasses.replace(small_config(volume, steps=12), cps=CPSConfig(method="cps"))
    train(config, tmp_path / "run")

    def prob(prediction, **options):
        suffix = f"_{prediction}_pred"
        options = PredictOptions(
            prediction=prediction, suffix=suffix, probabilities=True, **options
        )
        predict_volume(volume, tmp_path / "run", slices=(3,), options=options)
        labels = open_volume(volume)
        assert labels.label_info(f"nuclei{suffix}")["prediction"] == prediction
        return labels, labels.label(f"nuclei_{prediction}_prob", TRAINING)[3].read().result()

    first, second = (prob(which)[1].astype(int) for which in ("first", "second"))
    labels, mean = prob("mean", disagreement=True)
    apart = labels.label("nuclei_mean_disagreement", TRAINING)[3].read().result()
    assert np.abs(mean - (first + second) / 2).max() <= 1
    assert np.abs(apart - np.abs(first - second)).max() <= 1 and apart.max() > 5
    runs.train_small(tmp_path / "single", depth=6)
    with pytest.raises(InputError, match="--disagreement is of two networks, but"):
        predict_volume(
            volume, tmp_path / "single" / "run", options=PredictOptions(disagreement=True)
        )
