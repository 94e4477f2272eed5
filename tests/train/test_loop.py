import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.checkpoint import LATEST, Checkpoints
from vemseg_jax.errors import InputError
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.models.resunet import ResUNetConfig
from vemseg_jax.train import loop
from vemseg_jax.train.loop import train


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "v.zarr")


@pytest.fixture(scope="module")
def finished(volume, tmp_path_factory):
    """An uninterrupted run: its folder and final state."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(small_config(volume), workdir)


def _log(workdir):
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def _assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_leaves_configuration_log_and_checkpoints(finished):
    workdir, state = finished
    assert int(state.step) == 6
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["name"] == "small_unet" and config["train"]["steps"] == 6
    log = _log(workdir)
    assert [line["step"] for line in log if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in log if "val_dice_nuclei" in line] == [3, 6]
    assert all(0 <= line["loss"] <= 1 for line in log if "loss" in line)
    trained = load_trained(workdir, "latest")
    _assert_same(trained.variables, state.variables)
    assert trained.description.val_slices == (2,)
    assert trained.description.train_slices == (0, 5)
    best = load_trained(workdir, None)
    assert best.which == "best" and best.step in (3, 6)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 5])
def test_a_stopped_run_goes_on_and_ends_bit_for_bit_the_same(
    volume, finished, tmp_path, monkeypatch, after
):
    collect, calls = loop._collect, []

    def stop(pending, checkpoints):
        calls.append(pending[-1][0])
        if calls[-1] >= after:
            raise _Killed
        return collect(pending, checkpoints)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_collect", stop)
        with pytest.raises(_Killed):
            train(small_config(volume), tmp_path)
    # What a killed process had logged beyond its last checkpoint, its last line cut short.
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "loss": 0.1}\n{"step": 5, "lo')
    with Checkpoints(tmp_path) as checkpoints:
        assert 0 < checkpoints.step(LATEST) < 6
    state = train(small_config(volume), tmp_path)
    _assert_same(state, finished[1])
    keys = ("step", "loss", "grad_norm", "val_dice_nuclei")

    def numbers(workdir):
        return [[line.get(key) for key in keys] for line in _log(workdir)]

    assert numbers(tmp_path) == numbers(finished[0])


def test_training_again_after_the_end_changes_nothing(volume, finished):
    _assert_same(train(small_config(volume), finished[0]), finished[1])


def test_another_configuration_in_the_same_folder_is_refused(volume, finished):
    workdir, _ = finished
    config = small_config(volume)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(InputError, match=r"optimizer.learning_rate: 0.001 -> 0.5"):
        train(config, workdir)
    config = small_config(volume)
    config.model = ResUNetConfig(filters=(4, 4, 4))
    with pytest.raises(InputError, match=r"model.name: 'small_unet' -> 'resunet'"):
        train(config, workdir)
    train(small_config(volume, log_every=5), workdir)


def test_a_checkpoint_of_another_model_is_refused(volume, finished, tmp_path):
    import shutil

    shutil.copytree(finished[0] / "checkpoints", tmp_path / "checkpoints")
    config = small_config(volume)
    config.model = ResUNetConfig(filters=(4, 4, 4))
    with pytest.raises(InputError, match=r"another network.*'small_unet' -> 'resunet'"):
        train(config, tmp_path)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(volume, tmp_path):
    config = small_config(volume, steps=40, log_every=1, checkpoint_every=1)
    config.optimizer = dataclasses.replace(
        config.optimizer, learning_rate=1e30, schedule="constant"
    )
    with pytest.raises(InputError, match=r"at step \d+: not finite; lower --config.optimizer"):
        train(config, tmp_path)
    kept = load_trained(tmp_path, "latest")
    assert kept.step >= 1


def test_the_loss_falls(volume, tmp_path):
    config = small_config(volume, steps=60, log_every=10, eval_every=0, batch_size=4)
    config.optimizer.learning_rate = 1e-2
    train(config, tmp_path)
    losses = [line["loss"] for line in _log(tmp_path) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert _log(tmp_path)[-1]["val_dice_nuclei"] > 0.8


def test_several_structures_and_slices_labelled_for_one_of_them(tmp_path):
    from vemseg_jax.data.store.label_writer import create_label

    path = write_volume(tmp_path / "v.zarr", labelled=(0, 2))
    with create_label(path, "nucleoli", overwrite=True) as label:
        label.write_mask(5, np.eye(40, 48, dtype=np.uint8))
    config = small_config(path, steps=3)
    config.model.num_classes = 2
    config.data = dataclasses.replace(
        config.data, structures=("nuclei", "nucleoli"), num_val_slices=0
    )
    state = train(config, tmp_path / "run")
    assert int(state.step) == 3
    assert load_trained(tmp_path / "run", None).description.train_slices == (0, 2, 5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_narrow_types_keep_float32_parameters(volume, tmp_path, precision):
    state = train(small_config(volume, precision=precision, steps=2), tmp_path)
    held = (state.params, state.batch_stats)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(held))


@pytest.mark.parametrize(
    "section, field, value, message",
    [
        ("train", "precision", "float8", "train.precision is 'float8'; it must be one of"),
        ("train", "batch_size", 0, "train.batch_size is 0; it must be at least 1"),
        ("optimizer", "schedule", "cosine", "one of warmup_poly, reference, constant"),
        ("data", "z_range", (5, 3), r"data.z_range is \(5, 3\)"),
        ("data", "z_range", (0, 99), "goes beyond the 6 slices"),
        ("data", "structures", (), "at least one label name"),
        ("data", "structures", ("vacuoles",), "no label 'vacuoles'; the volume has: "),
        ("data", "empty_crop_probability", 1.0, r"must be in \[0, 1\)"),
        ("data", "volume", "", "the path of a converted volume"),
        ("model", "num_classes", 3, "model.num_classes is 3; it must be 1"),
    ],
)
def test_bad_configurations_name_the_field(volume, tmp_path, section, field, value, message):
    config = small_config(volume)
    setattr(getattr(config, section), field, value)
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_slice_is_named(tmp_path):
    path = write_volume(tmp_path / "v.zarr")
    (shard,) = (file for file in (path / "0" / "c" / "5").rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(InputError, match=r"v.zarr/0/: slice 5 is damaged"):
        train(small_config(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _with_data(config, **data):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def test_a_run_that_reads_its_crops_ends_bit_for_bit_the_same(volume, finished, tmp_path):
    config = _with_data(small_config(volume), memory_budget_gib=1e-9)
    _assert_same(train(config, tmp_path / "run"), finished[1])


def test_the_memory_budget_may_change_when_a_run_goes_on(volume, finished, tmp_path, monkeypatch):
    saved = loop._save

    def stop(run, which, done, val_dice):
        saved(run, which, done, val_dice)
        if done == 4:
            raise _Killed

    monkeypatch.setattr(loop, "_save", stop)
    with pytest.raises(_Killed):
        train(small_config(volume), tmp_path / "run")
    monkeypatch.setattr(loop, "_save", saved)
    config = _with_data(small_config(volume), memory_budget_gib=1e-9)
    _assert_same(train(config, tmp_path / "run"), finished[1])


def test_several_steps_in_one_dispatch_are_the_same_training(volume, finished, tmp_path):
    workdir, one_by_one = finished
    state = train(small_config(volume, steps_per_dispatch=2), tmp_path / "run")
    assert int(state.step) == 6
    # Compiled together, sums round differently; Adam makes the most of it.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=4e-3), state.params, one_by_one.params
    )
    ours, theirs = _log(tmp_path / "run"), _log(workdir)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if "loss" in one:
            np.testing.assert_allclose(one["loss"], other["loss"], atol=1e-3)


def test_dispatches_end_where_something_is_due_and_begin_where_they_always_do(
    volume, tmp_path, monkeypatch
):
    begun = []
    dispatch = loop._dispatch

    def note(run, done, pending):
        after = dispatch(run, done, pending)
        begun.append((done, after - done))
        return after

    monkeypatch.setattr(loop, "_dispatch", note)
    config = small_config(
        volume, steps=11, steps_per_dispatch=3, log_every=100, eval_every=5, checkpoint_every=100
    )
    train(config, tmp_path / "run")
    assert begun == [(0, 3), (3, 1), (4, 1), (5, 1), (6, 3), (9, 1), (10, 1)]
