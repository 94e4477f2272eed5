"""The golden files: those kept here always, the whole set where it is at hand."""

import fnmatch
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.parity.__main__ import Golden, check_file, run
from tests.parity.dataset import check_dataset_item
from tests.parity.result import compare, worst
from vemseg_jax.data.crops.targets import boundary_target

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


def _bilinear(x, size):
    """Half-pixel centres, the edge repeated; no code of the project."""
    for _ in range(2):
        centre = np.clip((np.arange(size) + 0.5) * len(x) / size - 0.5, 0, len(x) - 1)
        low = np.floor(centre).astype(int)
        share = (centre - low)[:, None]
        x = (x[low] * (1 - share) + x[np.minimum(low + 1, len(x) - 1)] * share).T
    return x


@pytest.mark.parametrize(
    "shape, crop, small, corner, padding",
    [
        ((50, 60), 30, 8, (3, 7), (0, 0)),  # no whole factor
        ((50, 60), 40, 8, (3, 7), (0, 0)),
        ((32, 36), 40, 8, (0, 0), ((4, 4), (2, 2))),
        ((32, 60), 40, 8, (2, 7), ((8, 8), (0, 0))),
        ((32, 60), 40, 8, (0, 7), ((0, 8), (0, 0))),
    ],
    ids=["30 to 8", "40 to 8", "padded half", "padded wholly", "padded at the end"],
)
def test_items_of_any_crop_and_padding(shape, crop, small, corner, padding):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape).astype(np.uint8)
    mask = np.zeros(shape, np.uint8)
    mask[10:28, 12:30] = 1

    def item(plane):
        padded = np.pad(plane.astype(float), padding, mode="reflect") if any(padding) else plane
        cut = padded[corner[0] : corner[0] + crop, corner[1] : corner[1] + crop]
        return _bilinear(cut, small)[::-1]

    mean, std = (image / 255).mean(), (image / 255).std(ddof=1)
    small_mask = (item(mask) > 0.5).astype(np.uint8)
    distance = ndimage.distance_transform_edt(small_mask)
    golden = {
        "image": image,
        "mask": mask,
        "norm_mean_std": np.asarray([mean, std], np.float32),
        "f64/norm_mean_std": np.asarray([mean, std]),
        "x/crop_i_j_hflip_vflip": np.asarray([*corner, 0, 1]),
        "x/image": ((item(image) / 255 - mean) / std)[None].astype(np.float32),
        "x/mask": small_mask[None],
        "x/boundary": np.asarray(boundary_target(small_mask[None, ..., None]))[..., 0],
        "x/distance": (distance / distance.max())[None].astype(np.float32),
    }
    results = list(check_dataset_item(golden))
    assert len(results) == 5
    assert not [result for result in results if not result.ok]
    golden["x/image"] = golden["x/image"] + np.float32(1e-4)
    assert [r for r in check_dataset_item(golden) if not r.ok]
