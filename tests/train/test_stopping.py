"""Runs that are stopped and go on, and starts that fail."""

import dataclasses
import json
import math
import os
import signal

import jax
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.checkpoint import BEST, LATEST, Checkpoints
from vemseg_jax.errors import InputError
from vemseg_jax.interrupts import Abandoned, Stopped, StopRequest
from vemseg_jax.train import loop, setup
from vemseg_jax.train.folder import RunFolder
from vemseg_jax.train.loop import train
from vemseg_jax.train.owed import Owed
from vemseg_jax.train.ranking import Score, mean_score
from vemseg_jax.train.validate import Validation


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "v.zarr")


def _lines(workdir):
    keys = ("step", "loss", "grad_norm", "val_loss", "val_dice_nuclei")
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [[line.get(key) for key in keys] for line in lines]


def _interrupt(patch, name, *, after, number=signal.SIGINT):
    """Ctrl-C as soon as the loop calls `name` with step `after`, at its begin."""
    call = getattr(loop, name)

    def interrupted(run, done, *rest):
        if done == after:
            signal.raise_signal(number)
        return call(run, done, *rest)

    patch.setattr(loop, name, interrupted)


def test_a_run_that_is_stopped_again_and_again_ends_bit_for_bit_the_same(
    volume, tmp_path, monkeypatch, capfd
):
    whole = train(small_config(volume, eval_every=2, log_every=3), tmp_path / "whole")
    config = small_config(volume, eval_every=2, log_every=3)
    handler = signal.getsignal(signal.SIGTERM)
    # While the first step compiles; in a validation that is due; between lines of the log.
    for name, after, reached, number in (
        ("_dispatch", 0, 1, signal.SIGINT),
        ("_validate", 2, 2, signal.SIGTERM),
        ("_dispatch", 4, 5, signal.SIGINT),
    ):
        with monkeypatch.context() as patch:
            _interrupt(patch, name, after=after, number=number)
            with pytest.raises(Stopped, match=rf"after step {reached} of 6, .* saved in .*stopped"):
                train(config, tmp_path / "stopped")
        assert capfd.readouterr().err.count("stopping after this step, to save it") == 1
        with Checkpoints(tmp_path / "stopped", read_only=True) as checkpoints:
            assert checkpoints.step(LATEST) == reached
        assert signal.getsignal(signal.SIGTERM) is handler
    state = train(config, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    assert _lines(tmp_path / "stopped") == _lines(tmp_path / "whole")
    for which in (LATEST, BEST):
        kept = []
        for name in ("whole", "stopped"):
            with Checkpoints(tmp_path / name, read_only=True) as checkpoints:
                kept.append(checkpoints.meta(which))
        assert kept[0] == kept[1]


# Of a structure that no held-out slice shows the Dice is nan, and counts 0.
STRUCTURES = ("nuclei", "nucleoli")
SCORES = [
    dict(zip(STRUCTURES, dice, strict=True)) for dice in ((0.98, math.nan), (0.92, 0.9), (0.5, 0.5))
]


@pytest.mark.parametrize("earlier", [False, True], ids=["this version", "an earlier version"])
def test_what_ranks_is_the_same_after_a_resume(volume, tmp_path, monkeypatch, earlier):
    dice = iter(SCORES)
    monkeypatch.setattr(
        setup, "make_validator", lambda *_, **__: lambda _: Validation(next(dice), 0.5)
    )
    config = small_config(volume, eval_every=2, checkpoint_every=2)
    config.data = dataclasses.replace(config.data, structures=STRUCTURES)
    config.model.num_classes = 2
    if earlier:
        # Those wrote the defined values alone.
        monkeypatch.setattr(Score, "to_meta", lambda self: {"val_dice": self.dice})
    with monkeypatch.context() as patch:
        _interrupt(patch, "_dispatch", after=2)
        with pytest.raises(Stopped):
            train(config, tmp_path)
    train(config, tmp_path)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.step(BEST) == 4
        assert checkpoints.meta(BEST)["val_dice"] == SCORES[1]


def test_a_score_survives_json():
    for dice in SCORES:
        score = Score.of(dice)
        assert score.value == mean_score(dice)
        meta = json.loads(json.dumps(score.to_meta(), allow_nan=False))
        assert Score.from_meta(meta, STRUCTURES) == score
        assert Score.from_meta({"val_dice": meta["val_dice"]}, STRUCTURES).value == score.value
    nothing = Score.of({"a": math.nan, "b": math.nan})
    assert nothing.value == 0 == Score.from_meta({"val_dice": {}}, ("a", "b")).value
    before = json.loads(json.dumps(Score().to_meta()))
    assert Score.from_meta(before, ("a",)).value is None


def test_what_is_owed_survives_json():
    steps = ({"loss": np.float32(0.1), "skipped": np.bool_(True), "loss_scale": np.float32(2)},)
    owed = Owed(True, steps)
    found = Owed.from_meta(json.loads(json.dumps(owed.to_meta())))
    assert found.validation and Owed().to_meta() == {} and Owed.from_meta({}) == Owed()
    for name, value in steps[0].items():
        assert found.unlogged[0][name] == value
        assert found.unlogged[0][name].dtype == np.asarray(value).dtype


def test_an_interrupt_before_the_first_step_leaves_no_folder(volume, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(small_config(volume), tmp_path / "run")
    assert not isinstance(stopped.value, Stopped)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["initial_state", "make_supervised_step"])
def test_a_start_that_fails_claims_no_folder(volume, tmp_path, monkeypatch, where):
    def broken(*_):
        raise ValueError("does not compile")

    def fails(*_):
        if where == "initial_state":
            broken()
        return broken

    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(setup, where, fails)
        for name in ("run", "there"):
            with pytest.raises(ValueError, match="does not compile"):
                train(small_config(volume), tmp_path / name, tensorboard=True)
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "there").iterdir())
    # The corrected command is no other run.
    config = small_config(volume, steps=1, eval_every=0, batch_size=3)
    train(config, tmp_path / "there")
    assert json.loads((tmp_path / "there" / "config.json").read_text())["train"]["batch_size"] == 3


def _folder(tmp_path, volume, **options):
    return RunFolder(tmp_path / "run", small_config(volume, **options))


def test_a_configuration_alone_is_no_run(volume, tmp_path):
    with _folder(tmp_path, volume) as folder:
        folder.open()
        folder.claim()
    for name in ("latest", "best"):
        (tmp_path / "run" / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "run" / "log.jsonl").touch()
    with _folder(tmp_path, volume, batch_size=3) as folder:
        folder.open()
        folder.claim()
    path = tmp_path / "run" / "config.json"
    assert json.loads(path.read_text())["train"]["batch_size"] == 3
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1}\n')
    with (
        _folder(tmp_path, volume) as folder,
        pytest.raises(InputError, match=r"another configuration \(train.batch_size: 3 -> 2\)"),
    ):
        folder.open()
    (tmp_path / "run" / "log.jsonl").write_text("")
    (tmp_path / "run" / "checkpoints" / "latest" / "7").mkdir()
    with (
        _folder(tmp_path, volume) as folder,
        pytest.raises(InputError, match="another configuration"),
    ):
        folder.open()


def test_a_run_of_a_version_with_fewer_options_goes_on(volume, tmp_path):
    with _folder(tmp_path, volume) as folder:
        folder.open()
        folder.claim()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1}\n')
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    del values["model"]["levels"], values["train"]["precision"]
    path.write_text(json.dumps(values))
    with (
        _folder(tmp_path, volume) as folder,
        pytest.raises(InputError, match=r"another configuration \(model.levels: 3 -> 1\)"),
    ):
        folder.open()
    config = small_config(volume)
    config.model.levels = 3  # as it was by default
    with RunFolder(tmp_path / "run", config) as folder:
        folder.open()


def test_two_runs_do_not_share_a_folder(volume, tmp_path):
    with _folder(tmp_path, volume) as folder:
        folder.open()
        with (
            _folder(tmp_path, volume) as other,
            pytest.raises(InputError, match="another process is training there"),
        ):
            other.open()
    with _folder(tmp_path, volume) as folder:
        folder.open()


def test_a_folder_that_cannot_be_written_is_said(volume, tmp_path):
    (tmp_path / "run").touch()
    with (
        _folder(tmp_path, volume) as folder,
        pytest.raises(InputError, match=r"--workdir=.*run cannot be written"),
    ):
        folder.open()


def test_an_interrupt_is_raised_noted_and_raised_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vemseg_jax.interrupts.time.monotonic", lambda: now[0])
    handler = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        stop.defer()
        assert list(stop.leaving([1, 2])) == [1, 2] and not stop.reached(3)
        signal.raise_signal(signal.SIGINT)
        # What arrives at once is the same one.
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked and stop.reached(3)
        with pytest.raises(Abandoned):
            list(stop.leaving([1, 2]))
        now[0] = 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_signals_that_are_ignored_stay_ignored(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            stop.defer()
            os.kill(os.getpid(), signal.SIGTERM)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGTERM, before)
