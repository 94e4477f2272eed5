"""A study through its runs, on volumes of disks."""

import csv
import dataclasses
import json
import platform
import re
import subprocess
import sys
import time

import jax
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.atomic import lock, unlock
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.study import presets, report
from vemseg_jax.study import run as run_module
from vemseg_jax.study.cell import RESULT
from vemseg_jax.study.design import (
    Method,
    Study,
    StudyVolume,
    cells,
    experiment,
    scored_slices,
    training_slices,
)
from vemseg_jax.study.report import write_report
from vemseg_jax.study.run import CELLS, check_study, outcomes, run_study
from vemseg_jax.study.specs import experiment_of, to_values

DEPTH = 9


def _method(name, *, cps="supervised", base="", **train):
    config = small_config("unset", batch_size=4, eval_every=0, checkpoint_every=50, **train)
    config.cps = dataclasses.replace(config.cps, method=cps)
    return Method(name, config, base)


@pytest.fixture
def study(tmp_path):
    paths = [
        write_volume(tmp_path / f"{n}.zarr", depth=DEPTH, labelled=range(DEPTH), seed=n)
        for n in (0, 1)
    ]
    structures = ("nuclei", "nucleoli")
    return Study(
        name="disks",
        volumes=tuple(StudyVolume(p.stem, p, structures, f"Disks of {p.stem}.") for p in paths),
        budgets=(2, 3),
        methods=(_method("Net", steps=2), _method("SSL", cps="cps", base="Net", steps=2)),
        joint=True,
        across=True,
        across_budget=2,
        across_methods=("Net",),
    )


def _one(study, **changes):
    """A study of a single cell."""
    changes = {"budgets": (2,), "methods": study.methods[:1], "across": False} | changes
    return dataclasses.replace(study, volumes=study.volumes[:1], **changes)


def test_every_combination_is_a_run(study):
    found = list(cells(study))
    inside = [(c.volume, c.budget, c.method) for c in found if not c.is_across]
    expected = [(v, b, m) for v in ("0", "1") for b in (2, 3) for m in ("Net", "SSL")]
    assert inside == expected
    across = [(c.trained_on, c.volume) for c in found if c.is_across]
    assert across == [(("1",), "0"), (("0",), "1")]
    assert len({c.key for c in found}) == len(found)
    alone = dataclasses.replace(study, joint=False, seeds=(0, 1))
    assert len(list(cells(alone))) == 2 * 2 * len(found)


def test_all_runs_of_a_volume_are_scored_on_slices_that_none_trains_on(study):
    volume = study.volumes[0]
    assert training_slices(volume, 3) == (0, 4, 8)
    assert scored_slices(study, volume) == (1, 2, 3, 5, 6, 7)
    with pytest.raises(InputError, match="9 slices are labelled; a budget of 9 leaves"):
        training_slices(volume, DEPTH)
    # No budget takes all, but together they do.
    greedy = dataclasses.replace(study, budgets=(8, 7, 4), across=False)
    assert {z for b in greedy.budgets for z in training_slices(volume, b)} == set(range(DEPTH))
    with pytest.raises(InputError, match="take every labelled slice"):
        scored_slices(greedy, volume)


def test_a_run_is_configured_by_its_cell(study):
    found = {(c.is_across, c.method): experiment(study, c) for c in cells(study)}
    config = found[False, "SSL"]
    assert config.model.num_classes == 2 and config.data.structures == ("nuclei", "nucleoli")
    assert config.data.train_slices == (0, 4, 8) and config.data.num_val_slices == 0
    across = found[True, "Net"]
    assert across.data.volume.endswith("0.zarr") and across.data.train_slices == (0, 8)
    third = dataclasses.replace(study.volumes[1], name="2")
    three = dataclasses.replace(study, volumes=(*study.volumes, third))
    last = [c for c in cells(three) if c.is_across][-1]
    data = experiment(three, last).data
    assert (last.trained_on, last.volume) == (("0", "1"), "2")
    assert data.num_train_slices == 2 and data.train_slices == ()
    assert data.other_volumes == (str(study.volumes[1].path),)
    assert experiment_of({"config": json.loads(json.dumps(to_values(config)))}) == config


def test_volumes_that_show_the_same_slices(study, tmp_path):
    raw = study.volumes[0]
    path = preprocess(raw.path, tmp_path / "aligned.zarr", PreprocessOptions(histogram="equalize"))
    copy = dataclasses.replace(raw, name="copy", path=path)
    twice = dataclasses.replace(study, volumes=(raw, copy))
    with pytest.raises(InputError, match=r"0 and copy show the same slices \(made from the same"):
        check_study(twice)
    # By themselves they may be compared, but are no repetitions.
    apart = dataclasses.replace(twice, across=False)
    check_study(apart)
    said = "\n".join(report._conditions(apart, []))
    assert "0 and copy show the same slices" in said and "no independent repetitions" in said
    assert "their images were seen in training" in said
    assert "show the same slices" not in "\n".join(report._conditions(study, []))


def test_the_ramp_ends_at_the_same_step_for_every_budget(study):
    from vemseg_jax.train.semi_supervised import steps_per_epoch

    study = dataclasses.replace(
        study, ramp_end=0.5, methods=(_method("SSL", cps="cps", steps=400),), across=False
    )
    ends = set()
    for cell in cells(study):
        config = experiment(study, cell)
        ends.add(config.cps.ramp_end * steps_per_epoch(config, cell.budget))
    assert ends == {200.0}


def test_what_trains_or_predicts_otherwise_has_another_name(study):
    names = {c.key for c in cells(study)}
    slower = _method("Net", steps=2)
    slower.config.optimizer = dataclasses.replace(slower.config.optimizer, learning_rate=1e-5)
    others = [
        dataclasses.replace(study, methods=(slower, study.methods[1])),
        dataclasses.replace(study, prediction="whole"),
        presets.narrowed(study, prediction="whole", precision="bfloat16"),
    ]
    changed = [{c.key for c in cells(other)} for other in others]
    ssl = {c.key for c in cells(study) if c.method == "SSL"}
    assert changed[0] & names == ssl
    assert not changed[1] & names and not changed[2] & (names | changed[1])
    precisions = {m.config.train.precision for m in others[2].methods}
    assert precisions == {"bfloat16"} and others[2].prediction == "whole"
    assert {m.config.train.precision for m in study.methods} == {"float32"}


def test_a_study_runs_scores_and_goes_on(study, tmp_path, capfd):
    study, output = _one(study), tmp_path / "study"
    (found,) = run_study(study, output)
    folder = output / CELLS / found.cell.key
    assert found.failed is None and 0 <= found.dice_3d("nuclei") <= 1
    assert (folder / "evaluation" / "summary.json").exists()
    assert not (folder / "training" / "checkpoints").exists()
    slices = found.result["scores"]["nucleoli"]["slices"]
    assert [z for z, role, _ in slices if role == "test"] == [1, 2, 3, 4, 5, 6, 7]
    label = found.result["scores"]["nuclei"]["prediction"]
    assert open_volume(study.volumes[0].path).label_info(label)["training_slices"] == [0, 8]
    before = (folder / RESULT).stat().st_mtime_ns
    capfd.readouterr()
    run_study(study, output)
    assert "1 runs, 1 done before" in capfd.readouterr().out
    assert (folder / RESULT).stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"holds another study .*budgets: "):
        run_study(dataclasses.replace(study, budgets=(3,)), output)
    with pytest.raises(InputError, match=r"holds another study .*prediction: 'window' -> 'whole'"):
        run_study(dataclasses.replace(study, prediction="whole"), output)
    # The predictions that a lost folder has left in the volume stand in nobody's way.
    (again,) = run_study(study, tmp_path / "again")
    assert again.result["scores"] == found.result["scores"]
    page = write_report(study, outcomes(study, output), output, command="vemseg-study")
    text = (page.parent / "README.md").read_text()
    assert "1 runs: 1 done, 0 failed, 0 not run." in text
    assert "in the paper's sliding window" in text
    assert f"jax {jax.__version__}, Python {platform.python_version()}, vemseg_jax " in text
    assert "All runs together took 0:00:" in text
    assert f"| 0      | Net    |{found.dice_3d('nuclei'):9.3f} |" in text
    assert "- Disks of 0." in text and "Disks of 1." not in text
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 4
    assert "Semi-supervised" not in text and found.result["resumed"] is False
    assert 'src="data' in html
    assert "http" not in html


def test_a_run_that_fails_is_reported_and_tried_again(study, tmp_path, monkeypatch):
    bad = _method("Net", steps=2)
    bad.config.data = dataclasses.replace(bad.config.data, memory_budget_gib=-1.0)
    study, output = _one(study, methods=(bad,)), tmp_path / "study"
    (found,) = run_study(study, output)
    assert found.result is None
    assert "data.memory_budget_gib is -1.0" in found.failed and "exit status" in found.failed
    page = write_report(study, outcomes(study, output), output, command="vemseg-study")
    text = (page.parent / "README.md").read_text()
    assert "1 runs: 0 done, 1 failed, 0 not run." in text
    assert len(re.findall(r"\| +failed \|", text)) >= 4 and "memory_budget_gib" in text
    with (page.parent / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"][:7] for row in rows] == ["failed:"] * 2
    monkeypatch.setattr("vemseg_jax.study.run.experiment", lambda study, cell: _mended(study, cell))
    (again,) = run_study(study, output)
    assert again.failed is None and again.result is not None


def test_processes_keep_off_each_others_runs(study, tmp_path, capsys, monkeypatch):
    """One at another process, which dies; one that another process fails at."""
    names = ("Net", "B", "C")
    study = _one(study, methods=tuple(_method(name, steps=2) for name in names))
    began, own, failed = cells(study)
    folder, other = (tmp_path / CELLS / cell.key for cell in (began, failed))
    folder.mkdir(parents=True)
    taken, ran, run = lock(folder, wait=False), [], run_module._run_locked

    def run_locked(study, cell, folder, held):
        assert (cell == own) != (own in ran)  # the one that is held comes last
        ran.append(cell)
        if cell == own:
            other.mkdir()
            (other / "failed.json").write_text('{"reason": "no memory", "status": 1}')
            unlock(taken)
        run(study, cell, folder, held)

    monkeypatch.setattr(run_module, "_run_locked", run_locked)
    found = run_study(study, tmp_path)
    assert ran == [own, began]
    assert [o.failed for o in found] == [None, None, "no memory"]
    assert found[0].result and found[1].result
    said = capsys.readouterr().out
    assert "[1/3] 0, 2 slices, Net, seed 0: another process is at it" in said
    assert "[1/1 begun elsewhere] 0, 2 slices, Net, seed 0: 3D Dice nuclei " in said


def _mended(study, cell):
    config = experiment(study, cell)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, memory_budget_gib=0.0))


def test_presets_say_what_they_lack(tmp_path):
    with pytest.raises(InputError, match=r"--data=None: give the folder with em.tif"):
        presets.hela(tmp_path, None)
    with pytest.raises(InputError, match="--volumes: missing"):
        presets.paper((), tmp_path)
    with pytest.raises(InputError, match="give NAME=PATH"):
        presets.paper(("v.zarr",), tmp_path)
    volume = write_volume(tmp_path / "v.zarr")
    with pytest.raises(InputError, match=r"--configs: .*resunet.py is not there"):
        presets.paper((f"Vol1={volume}",), tmp_path)


def _within(study, method):
    return [c for c in cells(study) if c.method == method and not c.is_across]


def test_what_would_be_confused_is_refused(study):
    first, second = study.volumes
    for changes, message in (
        ({"volumes": (first, dataclasses.replace(second, name="0"))}, "the name 0 is there more"),
        ({"volumes": (first, dataclasses.replace(first, name="x"))}, "the path .* more than once"),
        ({"budgets": (2, 2)}, "--budgets: 2 is there more than once"),
        ({"seeds": (1, 1)}, "--seeds: 1 is there more than once"),
        ({"volumes": (dataclasses.replace(first, name="a/b"), second)}, "'a/b' goes into file"),
    ):
        with pytest.raises(InputError, match=message):
            check_study(dataclasses.replace(study, **changes))


def test_the_papers_preset_has_its_methods_and_schedule(study, tmp_path):
    from pathlib import Path

    volumes = [f"Vol{v.name}={v.path}" for v in study.volumes]
    paper = presets.paper(volumes, Path(__file__).parents[2] / "configs")
    assert paper.budgets == (7, 10, 15, 25) and len(paper.methods) == 11
    # What a semi-supervised method is held against is the same network.
    for method in paper.methods:
        if method.base:
            assert method.config.model == paper.method(method.base).config.model
            assert method.config.loss == paper.method(method.base).config.loss
    assert paper.method("SSL-UNet++ + CutMix").config.train.steps == 22_500
    assert paper.across is False
    some = presets.narrowed(paper, methods=["UNet++"], budgets=[2], seeds=[5])
    assert [c.seed for c in cells(some)] == [5] * 4
    paper = dataclasses.replace(paper, budgets=(2,), seeds=(0,))
    with pytest.raises(InputError, match="--methods: found 'V-Net'; this study has: ResUNet"):
        presets.narrowed(paper, methods=["V-Net"])
    steps = {c.budget: experiment(paper, c).train.steps for c in _within(paper, "ResUNet")}
    assert steps == {2: 8_000}
    # A study of fewer labels asks for no more of them across volumes.
    assert (
        some.across_budget == 2 and presets.narrowed(paper, methods=["SenFormer"]).across is False
    )
    # The networks can be built for these structures, and none waits for a validation.
    for cell in cells(paper):
        config = experiment(paper, cell)
        assert config.data.structures in (("nuclei",), ("nucleoli",))
        assert config.optimizer.schedule != "plateau"


RUN = """
import pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path(sys.argv[1], "saved").write_text(signal.Signals(number).name)
    sys.exit(130)
signal.signal(signal.SIGINT, save)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def test_an_interrupt_is_passed_on_and_waits_for_the_run(tmp_path, monkeypatch):
    class Interrupted(subprocess.Popen):
        waits = 0

        def wait(self, timeout=None):
            self.waits += 1
            if self.waits == 1:
                while not (tmp_path / "ready").exists():
                    assert self.poll() is None
                    time.sleep(0.01)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(run_module.subprocess, "Popen", Interrupted)
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        run_module._run_process(command, tmp_path / "log.txt", None)
    assert (tmp_path / "saved").read_text() == "SIGINT"
