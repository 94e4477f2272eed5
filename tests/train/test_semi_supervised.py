"""Whole runs of two networks that teach each other."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.config import CPSConfig
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.models import pair, torch_import
from vemseg_jax.train import loop
from vemseg_jax.train.batches import find_split, unlabelled_slices
from vemseg_jax.train.import_weights import import_weights
from vemseg_jax.train.loop import train
from vemseg_jax.train.semi_supervised import steps_per_epoch


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "v.zarr")


def _config(volume, **options):
    config = small_config(volume)
    config.train.batch_size = 4
    # The ramp begins within the run: epochs of one step.
    config.cps = CPSConfig(
        **{"method": "cps_cutmix", "epoch_crops": 1, "ramp_start": 1, "ramp_end": 4} | options
    )
    return config


@pytest.fixture(scope="module")
def finished(volume, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(_config(volume), workdir)


class _Killed(Exception):
    pass


def test_a_stopped_run_ends_bit_for_bit_the_same(volume, finished, tmp_path, monkeypatch):
    collect = loop._collect

    def stop(pending, run):
        if pending[-1][0] >= 5:
            raise _Killed
        return collect(pending, run)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_collect", stop)
        with pytest.raises(_Killed):
            train(_config(volume), tmp_path)
    state = train(_config(volume), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, finished[1])


def test_the_checkpoint_holds_both_networks(volume, finished):
    workdir, state = finished
    trained = load_trained(workdir, "latest")
    jax.tree.map(np.testing.assert_array_equal, trained.variables, state.variables)
    assert trained.description.networks == 2 and trained.description.prediction == "first"
    first, second = (pair.network(trained.variables, n)["params"] for n in (0, 1))
    kernels = [jax.tree.leaves(each)[1] for each in (first, second)]
    assert np.any(kernels[0] != kernels[1])


def test_one_network_has_no_choice_of_prediction(volume, tmp_path):
    config = small_config(volume)
    config.train.steps = 1
    train(config, tmp_path)
    with pytest.raises(InputError, match="--prediction=mean is of two networks, but"):
        predict_volume(volume, tmp_path, options=PredictOptions(prediction="mean"))


def test_slices_without_labels_are_all_that_neither_train_nor_validate(volume):
    config, opened = _config(volume), open_volume(volume)
    split = find_split(opened, config)
    slices = unlabelled_slices(opened, config, split)
    assert sorted([*slices, *split.train, *split.val]) == list(range(opened.shape[0]))
    config.data.z_range = (0, 1)
    config.data.num_val_slices = 0
    with pytest.raises(InputError, match=r"no unlabelled slice.*--config.cps.method=supervised"):
        unlabelled_slices(opened, config, find_split(opened, config))


def test_an_epoch_is_64_crops_of_each_labelled_slice(volume):
    config = _config(volume, epoch_crops=64)
    config.train.batch_size = 20
    assert steps_per_epoch(config, 7) == 45


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("method", "mean_teacher", r"cps.method is 'mean_teacher'.*supervised, cps, cps_cutmix"),
        ("loss", "l2", r"cps.loss is 'l2'.*dice, cross_entropy"),
        ("weight", 0, r"cps.weight is 0"),
        ("ramp_end", 1, r"cps.ramp_end is 1.*greater than cps.ramp_start \(1\)"),
        ("prediction", "both", r"cps.prediction is 'both'.*first, second, mean"),
    ],
)
def test_a_bad_option_is_refused(volume, tmp_path, field, value, message):
    config = _config(volume)
    setattr(config.cps, field, value)
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size, message", [(5, "even: half labelled"), (2, "at least 4: CutMix")])
def test_a_batch_that_cannot_be_halved_is_refused(volume, tmp_path, size, message):
    config = _config(volume)
    config.train.batch_size = size
    with pytest.raises(InputError, match=rf"train.batch_size is {size}.*{message}"):
        train(config, tmp_path / "run")


def test_imported_weights_go_to_the_first_network(volume, finished, tmp_path):
    config = _config(volume)
    variables = pair.network(finished[1].variables, 0)
    state = torch_import.to_torch(config.model, variables["params"])
    state |= torch_import.to_torch(config.model, variables["batch_stats"])
    np.savez(tmp_path / "weights.npz", **state)
    import_weights(config, tmp_path / "run", tmp_path / "weights.npz", encoder=False)
    imported = load_trained(tmp_path / "run", "latest").variables
    jax.tree.map(np.testing.assert_array_equal, pair.network(imported, 0), variables)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    assert int(train(config, tmp_path / "run").step) == config.train.steps
    with pytest.raises(InputError, match="another configuration"):
        train(longer, tmp_path / "run")
