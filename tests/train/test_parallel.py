"""Several devices and several processes train as one device does."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.train.runs import write_volume
from vemseg_jax.checkpoint import LATEST, Checkpoints
from vemseg_jax.errors import InputError
from vemseg_jax.parallel import place

CONFIG = """
import dataclasses
from tests.train.runs import small_config

def get_config():
    config = small_config({volume!r}, batch_size=8, log_every=1, steps=6)
    config.cps = dataclasses.replace(config.cps, method={method!r}, ramp_start=0.0, ramp_end=0.1)
    config.data = dataclasses.replace(config.data, **{data!r})
    return config
"""
# Of the values between losses, some are thresholded.
COMPARED = ("loss", "grad_norm", "supervised_1", "supervised_2", "cross_1", "cross_2")


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "v.zarr")


def _environment(devices):
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


def _script(module, *arguments):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, env=_environment(4), check=True, capture_output=True, text=True, timeout=600
    ).stdout


def _start(config, workdir, *flags, devices=1):
    command = [sys.executable, "-m", "vemseg_jax.cli.train", f"--config={config}"]
    command += [f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command,
        env=_environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def _losses(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 7))
    return {name: [line[name] for line in losses] for name in COMPARED if name in losses[0]}


def _validation(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line["val_loss"] for line in lines if "val_loss" in line]


def _port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    "method, data",
    [("supervised", {}), ("cps_cutmix", {"memory_budget_gib": 1e-9})],
    ids=["supervised, resident", "cps_cutmix, streamed"],
)
def test_devices_and_processes_give_the_losses_of_one_device(volume, tmp_path, method, data):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(volume=str(volume), method=method, data=data))
    one, four, two = (tmp_path / name for name in ("one", "four", "two"))
    log = _finish(_start(config, one))
    assert " on 1 x " in log
    log = _finish(_start(config, four, devices=4))
    assert " on 4 x " in log
    together = [f"--coordinator=127.0.0.1:{_port()}", "--num_processes=2", "--distributed"]
    pair = [_start(config, two, *together, f"--process_id={n}") for n in range(2)]
    logs = [_finish(process) for process in pair]
    assert " on 2 x " in logs[0] and " on 2 x " not in logs[1]
    expected = _losses(one)
    for workdir in (four, two):
        found = _losses(workdir)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
        np.testing.assert_allclose(_validation(workdir), _validation(one), rtol=0, atol=1e-4)


def test_devices_share_the_work(volume):
    """Equal losses alone would not tell four devices that each do all of it."""
    one, four = map(float, _script("tests.train.shared_work", str(volume), "cps").split())
    assert four < 0.3 * one


def test_two_processes_go_on_where_they_were_stopped(volume, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(volume=str(volume), method="supervised", data={}))

    def both(steps):
        flags = [f"--coordinator=127.0.0.1:{_port()}", "--num_processes=2", "--distributed"]
        flags += [f"--config.train.steps={steps}", "--config.optimizer.schedule=constant"]
        pair = [_start(config, tmp_path / "two", *flags, f"--process_id={n}") for n in range(2)]
        return [process.communicate(timeout=600)[1] for process in pair], pair

    errors, pair = both(4)
    assert [process.returncode for process in pair] == [0, 0], errors
    # Refused by the first process, which alone looks at the folder, and the other does not wait.
    errors, pair = both(6)
    assert [process.returncode for process in pair] == [2, 2]
    assert "train.steps: 4 -> 6" in errors[0] and "the first process refused" in errors[1]
    path = tmp_path / "two" / "config.json"
    path.write_text(path.read_text().replace('"steps": 4', '"steps": 6'))
    errors, pair = both(6)
    assert [process.returncode for process in pair] == [0, 0], errors
    assert "continuing after step 4 of 6" in errors[0]
    assert len(_losses(tmp_path / "two")["loss"]) == 6


def test_crops_that_devices_cannot_share_are_refused():
    assert place(7, devices=0).devices == 1
    with pytest.raises(InputError, match=r"train.devices=64: there are \d+"):
        place(64, devices=64)


def test_a_batch_that_does_not_split_is_refused(volume, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(volume=str(volume), method="cps", data={}))
    process = _start(config, tmp_path / "run", "--config.train.devices=3", devices=4)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 2
    assert "4 crops (of each kind) cannot be shared evenly by 3 devices" in errors
    assert not (tmp_path / "run").exists()


def test_flags_of_several_processes_need_each_other(volume, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(volume=str(volume), method="cps", data={}))
    process = _start(config, tmp_path / "run", "--process_id=1")
    assert "belong to --distributed" in process.communicate(timeout=600)[1]
    process = _start(config, tmp_path / "run", "--distributed")
    assert "give --coordinator" in process.communicate(timeout=600)[1]


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(volume, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(volume=str(volume), method="supervised", data={}))
    flags = [f"--coordinator=127.0.0.1:{_port()}", "--num_processes=2", "--distributed"]
    flags += ["--config.train.steps=100000", "--config.train.eval_every=0"]
    pair = [_start(config, tmp_path / "two", *flags, f"--process_id={n}") for n in range(2)]
    for line in pair[0].stderr:
        if "step 2/" in line:
            break
    # The one that does not write.
    pair[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=600)[1] for process in pair]
    assert [process.returncode for process in pair] == [130, 130], errors
    with Checkpoints(tmp_path / "two", read_only=True) as checkpoints:
        step = checkpoints.step(LATEST)
    said = (
        f"stopped after step {step} of 100000, which is saved in {tmp_path / 'two'}; to continue: "
    )
    assert all(said in text for text in errors), errors
    assert "preemption sync point" not in errors[0]
