"""The binaries one after another, as a user runs them, on a stack of a few small slices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from vemseg_jax.data.phantom.stack import Phantom, PhantomConfig, write_tiff_stack
from vemseg_jax.data.store.volume import TRAINING, open_volume
from vemseg_jax.infer.trained import load_trained

ROOT = Path(__file__).parents[2]
TINY = [
    f"--config={ROOT}/configs/small_unet.py",
    "--config.model.base_channels=4",
    "--config.model.levels=1",
    "--config.data.crop_size=32",
    "--config.train.batch_size=2",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=3",
]


def _command(binary, *arguments):
    return [sys.executable, "-m", f"vemseg_jax.cli.{binary}", *map(str, arguments)]


def _run(binary, *arguments):
    return subprocess.run(_command(binary, *arguments), capture_output=True, text=True)


def _ok(binary, *arguments):
    done = _run(binary, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a converted phantom, labels on slices 0, 2, 4 of 6."""
    folder = tmp_path_factory.mktemp("pipeline")
    # Coarse voxels: a field of 208 x 256 pixels that still shows nuclei and nucleoli.
    config = PhantomConfig(shape=(6, 208, 256), voxel_size=(200, 40, 40))
    write_tiff_stack(Phantom(config), folder / "stack")
    labels = folder / "labels"
    labels.mkdir()
    for z in (0, 2, 4):
        source = folder / "stack" / "truth" / "nuclei" / f"nuclei_{z:04d}.tif"
        (labels / f"drawn_{z:04d}.tif").write_bytes(source.read_bytes())
    out = _ok(
        "convert",
        f"--images={folder}/stack/images",
        f"--output={folder}/v.zarr",
        "--voxel_size=200,40,40",
        f"--labels=nuclei={labels}",
        f"--labels=nuclei_truth={folder}/stack/truth/nuclei",
    )
    assert "drawn_0002.tif" in out
    return folder


def _train_arguments(folder, workdir, steps):
    return [
        *TINY,
        f"--config.data.volume={folder}/v.zarr",
        f"--config.train.steps={steps}",
        f"--workdir={workdir}",
    ]


def test_train_predict_evaluate(folder, tmp_path):
    _ok("train", *_train_arguments(folder, tmp_path / "run", 2), "--tensorboard")
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    out = _ok("predict", f"--volume={folder}/v.zarr", f"--checkpoint={tmp_path}/run")
    assert "nuclei_pred" in out
    prediction = open_volume(folder / "v.zarr").label("nuclei_pred", TRAINING).read().result()
    assert prediction.shape == (6, 52, 64) and set(np.unique(prediction)) <= {0, 1}
    out = _ok(
        "evaluate",
        f"--volume={folder}/v.zarr",
        "--truth=nuclei=nuclei_truth",
        f"--output={tmp_path}/evaluation",
    )
    assert "3D Dice" in out
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    text = json.dumps(summary)
    assert "nuclei_truth" in text
    assert (tmp_path / "evaluation" / "dice_per_slice.png").stat().st_size > 1000
    assert "nothing to do" in _ok(
        "predict", f"--volume={folder}/v.zarr", f"--checkpoint={tmp_path}/run"
    )
    assert "as they were written" in _ok("predict", f"--volume={folder}/v.zarr", "--verify")
    again = _run(
        "predict", f"--volume={folder}/v.zarr", f"--checkpoint={tmp_path}/run", "--slices=1"
    )
    assert again.returncode == 2
    assert again.stderr.strip().startswith("error: ") and "--overwrite" in again.stderr


XNET = ["filters=8", "depth=1", "psp_depth=1", "heads=1", "norm_groups=2", "attention_depth=1"]
RESNET = ["encoder=resnet18", "encoder_depth=3", "decoder_channels=(8, 8, 8)"]
NETWORKS = {
    "unet": ["base_channels=4", "levels=1"],
    "resunet": ["filters=(4, 4)"],
    "unetplusplus": [*RESNET, "deep_supervision=True"],
    "unetplusplus_cps": ["encoder=resnet18", "decoder_channels=(8, 8, 8)"],
    "smp_unet": RESNET,
    "fractal_resnet": XNET,
    "ceecnet_v1": XNET,
    "ceecnet_v2": XNET,
    "senformer": ["backbone=nano", "features=16", "heads=2", "branch_depth=1"],
}
SSL_NETWORKS = ("resunet", "unetplusplus")
# One of each kind of output is predicted, and others are validated: each of them is a program that
# takes a while to compile.
PREDICTED = ("unetplusplus", "fractal_resnet", "senformer")
VALIDATED = ("resunet", "unetplusplus_cps", "fractal_resnet")
UNVALIDATED = ["--config.optimizer.schedule=constant", "--config.data.num_val_slices=0"]


def test_every_configuration_is_trained_here():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {name for name in names if not name.startswith("ssl_")} == {
        *NETWORKS,
        "small_unet",
        "hela_resunet",
    }
    pairs = {f"ssl_{name}{cutmix}" for name in SSL_NETWORKS for cutmix in ("", "_cutmix")}
    assert names >= pairs | {f"{name}_small" for name in pairs}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains(folder, tmp_path, name):
    validated = name in VALIDATED
    _ok(
        "train",
        f"--config={ROOT}/configs/{name}.py",
        *(f"--config.model.{option}" for option in NETWORKS[name]),
        *TINY[3:],
        f"--config.data.volume={folder}/v.zarr",
        "--config.train.steps=3",
        "--config.train.eval_every=2",
        *([] if validated else UNVALIDATED),
        f"--workdir={tmp_path}/run",
    )
    lines = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)
    assert any("val_loss" in line for line in lines) == validated
    if "fractal" in name or "ceecnet" in name:
        assert {"loss_prob", "loss_boundary", "loss_distance"} <= set(lines[0])
    if name in PREDICTED:
        volume, checkpoint = f"--volume={folder}/v.zarr", f"--checkpoint={tmp_path}/run"
        out = _ok("predict", volume, checkpoint, f"--suffix=_{name}", "--slices=1")
        assert f"nuclei_{name}" in out


def test_training_that_was_killed_ends_with_the_same_weights(folder, tmp_path):
    steps = 60
    _ok("train", *_train_arguments(folder, tmp_path / "whole", steps))
    arguments = _train_arguments(folder, tmp_path / "killed", steps)
    process = subprocess.Popen(_command("train", *arguments), stderr=subprocess.DEVNULL)
    latest = tmp_path / "killed" / "checkpoints" / "latest"
    deadline = time.monotonic() + 120
    while not (latest / "3").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (latest / str(steps)).exists()
    _ok("train", *arguments)
    whole, killed = (load_trained(tmp_path / name, "latest") for name in ("whole", "killed"))
    assert whole.step == killed.step == steps
    jax.tree.map(np.testing.assert_array_equal, whole.variables, killed.variables)
    steps_logged = [
        json.loads(line)["step"]
        for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert steps_logged == list(range(1, steps + 1))


def test_quickstart_goes_all_the_way(tmp_path):
    out = _ok("quickstart", f"--output={tmp_path}/qs", "--slices=8", "--steps=1")
    assert "nucleoli" in out and "done in" in out and "vemseg-convert" in out
    evaluation = tmp_path / "qs" / "evaluation"
    assert {"summary.md", "dice_per_slice.png"} <= {path.name for path in evaluation.iterdir()}
    volume = open_volume(tmp_path / "qs" / "volume.zarr")
    assert {"nuclei", "nuclei_truth", "nuclei_pred", "nucleoli_pred"} <= set(volume.label_names)
    refused = _run("quickstart", f"--output={tmp_path}/qs", "--slices=8", "--steps=2")
    assert refused.returncode == 2 and "other settings" in refused.stderr


@pytest.mark.parametrize(
    "binary, arguments, message",
    [
        ("train", ["--workdir=x"], "--config"),
        (
            "train",
            ["--config=missing.py", "--workdir=x"],
            "--config=missing.py could not be loaded",
        ),
        ("train", [TINY[0], "--workdir=x", "--config.optimizer.lr=1"], "Field lr not found"),
        ("train", [TINY[0], "--workdir=x"], "--config.data.volume is ''"),
        ("predict", ["--volume=none.zarr", "--checkpoint=x"], "none.zarr: no such volume"),
        ("predict", ["--volume=v", "--checkpoint=x", "--slices=3-5"], "'3-5' is no slice number"),
        ("quickstart", ["--preset=biopsy9"], "biopsy1, biopsy2, biopsy3"),
        ("quickstart", ["output"], "unexpected argument 'output'"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, binary, arguments, message):
    done = subprocess.run(
        _command(binary, *arguments), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_networks_train_and_predict(folder, tmp_path):
    run = tmp_path / "run"
    _ok(
        "train",
        f"--config={ROOT}/configs/ssl_resunet_cutmix_small.py",
        "--config.model.filters=(4, 4)",
        "--config.data.crop_size=32",
        "--config.train.batch_size=4",
        "--config.train.log_every=1",
        "--config.cps.epoch_crops=1",
        f"--config.data.volume={folder}/v.zarr",
        "--config.train.steps=3",
        f"--workdir={run}",
    )
    lines = [json.loads(x) for x in (run / "log.jsonl").read_text().splitlines()]
    assert {"cross_1", "cross_2", "agreement", "pseudo_foreground_1", "weight"} <= set(lines[0])
    predictions = {}
    for prediction in ("first", "second", "mean"):
        suffix = f"_{prediction}"
        _ok(
            "predict",
            f"--volume={folder}/v.zarr",
            f"--checkpoint={run}",
            f"--prediction={prediction}",
            f"--suffix={suffix}",
            "--slices=1",
        )
        label = open_volume(folder / "v.zarr").label(f"nuclei{suffix}", TRAINING)
        predictions[prediction] = label[1].read().result()
    first, second, mean = predictions.values()
    # The mean decides as both do where they agree, and else as the surer one.
    agree = first == second
    assert 0 < agree.mean() < 1
    np.testing.assert_array_equal(mean[agree], first[agree])
