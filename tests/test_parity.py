"""The golden files: those kept here always, the whole set where it is at hand."""

import fnmatch
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity.__main__ import Golden, check_file, run
from tests.parity.result import compare, worst

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "golden"
REFERENCE = ROOT.parent / "shared" / "reference"
# What takes minutes to compile is left to `tests.parity`: other sizes of networks that are checked
# in one.
LEFT_OUT = (
    "ceecnetv?_nf16*", "ceecnetv?_nf8_bn*", "fractalresnet_nf16*", "senformer_tiny_96x80",
    "resunet_full",
)  # fmt: skip


def _files() -> list[Path]:
    kept = sorted(KEPT.glob("*.npz"))
    names = {path.name for path in kept}
    other = [
        path
        for path in sorted(REFERENCE.glob("*.npz"))
        if path.name not in names and not any(fnmatch.fnmatch(path.stem, p) for p in LEFT_OUT)
    ]
    return kept + other


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.stem)
def test_golden_file_agrees(path):
    results = list(check_file(Golden(path)))
    assert len(results) >= 3
    assert not [result for result in results if not result.ok]


def test_a_wrong_number_fails(tmp_path, capsys):
    golden = dict(np.load(KEPT / "stack_dice.npz"))
    golden["avg_dice_2d"] = golden["avg_dice_2d"] + np.float32(1e-4)
    np.savez(tmp_path / "wrong.npz", **golden)
    assert not run(tmp_path)
    assert "avg_dice_2d  1.00e-04  FAIL" in capsys.readouterr().out


def test_a_wrong_gradient_is_not_taken_for_a_tie():
    golden = dict(np.load(KEPT / "smallunet_c8.npz"))
    golden["grad_l2/values"] = golden["grad_l2/values"] * np.float32(1.01)
    wrong = {result.what for result in check_file(golden) if not result.ok}
    assert wrong == {"grad_l2, 58 tensors, share of tolerance (float64)"}


def test_float64_is_float64_in_every_layer():
    golden = Golden(KEPT / "smallunet_c8.npz")
    # Makes it look at float64 too.
    golden["grad_l2/values"] = golden["grad_l2/values"] * np.float32(1.01)
    double = {r.what: r for r in check_file(golden) if "float64" in r.what}
    # Layers that round to float32 are 1e-8 off here, and decide ties as float32 does.
    assert double["loss (float64)"].error < 1e-13
    assert double["grad_norm (float64)"].error < 1e-12


def test_nan_fails():
    for errors in ([1.0, np.nan], [np.nan, 1.0], [np.nan], []):
        assert not worst("x", errors, 10).ok
    assert worst("x", [1.0, 9.0], 10).error == 9
    assert not compare("x", [0, np.nan], [0, 0], 10).ok
    assert not compare("x", [0, 0], [np.nan, 0], 10).ok


@pytest.mark.parametrize("key", ["grad_l2/values", "train_state/inc.double_conv.1.running_mean"])
def test_nan_in_one_of_many_tensors_fails(key):
    golden = Golden(KEPT / "smallunet_c8.npz")
    values = golden[key].copy()
    values[len(values) // 2] = np.nan
    golden[key] = values
    wrong = {r.what.split(",")[0] for r in check_file(golden) if not r.ok}
    assert wrong == {key.split("/")[0]}


def test_what_is_not_compared_fails(tmp_path, capsys):
    golden = dict(np.load(KEPT / "stack_dice.npz"))
    np.savez(tmp_path / "more.npz", **golden, another_dice=np.float32(0.5))
    assert not run(tmp_path)
    assert "not compared: another_dice  inf  FAIL" in capsys.readouterr().out
    np.savez(tmp_path / "more.npz", **{"schedule/epoch": np.arange(3)})
    assert not run(tmp_path)
    assert "nothing was compared  inf  FAIL" in capsys.readouterr().out
    del golden["dice_3d_if_all_slices_counted"]
    np.savez(tmp_path / "more.npz", **golden)
    assert not run(tmp_path)
    assert "KeyError: 'dice_3d_if_all_slices_counted'  -  FAIL" in capsys.readouterr().out


def test_an_unknown_file_fails_and_the_others_are_still_checked(tmp_path, capsys):
    np.savez(tmp_path / "a_mystery.npz", thing=np.zeros(3))
    shutil.copy(KEPT / "stack_dice.npz", tmp_path)
    assert not run(tmp_path)
    out = capsys.readouterr().out
    assert "a_mystery" in out and "FAIL" in out
    assert "stack_dice  dice_3d" in out


def test_command_line_narrows_and_reports_by_exit_status(tmp_path):
    command = [sys.executable, "-m", "tests.parity", str(KEPT), "--only"]
    done = subprocess.run([*command, "schedules"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "not compared" not in line]
    assert lines and all(line.endswith("ok") for line in lines)
    assert subprocess.run([*command, "none"], cwd=ROOT, capture_output=True).returncode == 1
