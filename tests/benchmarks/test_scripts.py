"""The scripts run, go on where they were, and say what failed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(script, *flags):
    command = [sys.executable, f"benchmarks/{script}.py", *map(str, flags)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    flags = ("--preset=smoke", f"--output={folder}", "--only=small_unet|scaling|inference")
    done = _run("run_all", *flags)
    assert done.returncode == 0, done.stdout
    return folder, flags


def test_results_say_what_was_measured_and_where(results):
    folder, _ = results
    names = {path.stem for path in folder.glob("*.json")}
    assert names == {"train_small_unet_float32", "train_small_unet_float16", "inference", "scaling"}
    result = json.loads((folder / "train_small_unet_float16.json").read_text())
    assert result["machine"]["platform"] == "cpu" and result["machine"]["cores"] >= 1
    (row,) = result["rows"]
    assert row["precision"] == "float16" and row["parameters"] == 269_009
    step = row["step_seconds"]
    assert 0 < step["low"] <= step["median"] <= step["high"] and step["n"] == 2
    assert 0 < row["share_of_matmul"] < 2
    # 1500 steps of 8 crops of 256, from steps of 2 crops of 64: 64 times the pixels.
    hours = row["schedule_steps"] * step["median"] * row["schedule_pixels"] / (2 * 64**2) / 3600
    assert row["extrapolated"] and row["volume_hours"] == pytest.approx(hours)


def test_what_is_measured_is_not_measured_again(results):
    folder, flags = results
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    done = _run("run_all", *flags)
    assert done.returncode == 0 and "4 benchmarks, 4 done before" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_the_report_has_a_row_for_every_result(results):
    folder, _ = results
    assert _run("report", f"--results={folder}").returncode == 0
    text = (folder / "README.md").read_text()
    assert text.count("| small_unet ") == 2 + 4
    assert "reference's scheme" in text and "![Scaling of small_unet, float32](scaling.png)" in text
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_that_fails_is_named_and_leaves_its_log(tmp_path):
    (tmp_path / "data").write_text("no folder")
    done = _run("run_all", "--preset=smoke", f"--output={tmp_path}", "--only=data_loading")
    assert done.returncode == 1
    assert "failed: data_loading" in done.stdout
    assert "Error" in (tmp_path / "data_loading.log").read_text()
    assert not (tmp_path / "data_loading.json").exists()


def test_an_empty_folder_has_no_report(tmp_path):
    done = _run("report", f"--results={tmp_path}")
    assert done.returncode != 0 and "holds no *.json" in done.stderr
