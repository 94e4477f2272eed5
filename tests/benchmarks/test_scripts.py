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


def _python(code, *arguments):
    """Runs a piece of a program beside the scripts; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def jobs():
    """Arguments of the jobs of all presets, by script."""
    printed = _python(
        "import json, pathlib, run_all\n"
        "presets = [getattr(run_all, name) for name in run_all.PRESETS]\n"
        "jobs = [preset(pathlib.Path('x'), peer=True).values() for preset in presets]\n"
        "print(json.dumps([job for some in jobs for job in some]))"
    )
    found = {}
    for script, arguments in json.loads(printed):
        found.setdefault(script, []).append(arguments)
    return found


SCRIPTS = ["convolutions", "data_loading", "inference", "scaling", "train_time"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_take_the_flags_of_every_preset(jobs, script):
    assert sorted(jobs) == SCRIPTS
    parsed = _python(
        "import json, sys\n"
        "from absl import flags\n"
        f"import {script}\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    flags.FLAGS.unparse_flags()\n"
        "    assert flags.FLAGS(['script', *arguments, '--output=x']) == ['script']\n"
        "    print(arguments)",
        json.dumps(jobs[script]),
    )
    assert len(parsed.splitlines()) == len(jobs[script])


@pytest.mark.parametrize(
    "device, precision, teraflops, gigabytes",
    [
        ("Tesla V100-SXM2-32GB", "float16", 125.0, 900.0),
        ("Tesla V100-SXM2-32GB", "bfloat16", None, 900.0),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.0, 3350.0),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0, 2000.0),
        ("NVIDIA H200 NVL", "float32", 418.0, 4800.0),
        ("NVIDIA H200", "float32", 494.5, 4800.0),
        ("cpu", "float32", None, None),
    ],
)
def test_data_sheets_are_those_of_the_very_card(device, precision, teraflops, gigabytes):
    from recording import datasheet_bytes, datasheet_flops

    assert datasheet_flops(device, precision) == (teraflops and teraflops * 1e12)
    assert datasheet_bytes(device) == (gigabytes and gigabytes * 1e9)


def test_an_unknown_kind_of_scaling_is_refused():
    done = _run("scaling", "--what=batchs")
    assert done.returncode != 0 and "must be among batch, crop" in done.stderr


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
    assert 0 < row["share_of_matmul"] < 2 and row["share_of_roofline"] is None
    # 1500 steps of 8 crops of 256, from steps of 2 crops of 64: 64 times the pixels.
    hours = row["schedule_steps"] * step["median"] * row["schedule_pixels"] / (2 * 64**2) / 3600
    assert row["extrapolated"] and row["volume_hours"] == pytest.approx(hours)


def test_what_is_measured_is_not_measured_again(results):
    folder, flags = results
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    done = _run("run_all", *flags)
    assert done.returncode == 0 and "4 benchmarks, 4 done before" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_what_was_measured_otherwise_is_measured_again(results):
    folder, flags = results
    path = folder / "train_small_unet_float32.json"
    found = json.loads(path.read_text())
    assert found["command"].startswith("python benchmarks/train_time.py --configs=configs/small_")
    path.write_text(json.dumps({**found, "command": "python benchmarks/train_time.py --batch=1"}))
    other = folder / "inference.json"
    by_other_code = json.loads(other.read_text())
    code, by_other_code["machine"]["code"] = by_other_code["machine"]["code"], "of another day"
    other.write_text(json.dumps(by_other_code))
    elsewhere = folder / "scaling.json"
    found_elsewhere = json.loads(elsewhere.read_text())
    found_elsewhere["machine"]["processor"] = "another"
    elsewhere.write_text(json.dumps(found_elsewhere))
    done = _run("run_all", *flags)
    assert done.returncode == 0 and "4 benchmarks, 1 done before" in done.stdout
    assert json.loads(other.read_text())["machine"]["code"] == code
    assert json.loads(elsewhere.read_text())["machine"]["processor"] != "another"
    again = json.loads(path.read_text())
    assert again["command"] == found["command"]
    assert again["rows"][0]["step_seconds"] != found["rows"][0]["step_seconds"]


def test_the_report_has_torch_beside_it_and_notes(results, tmp_path):
    folder, _ = results
    result = json.loads((folder / "train_small_unet_float16.json").read_text())
    (row,) = result["rows"]
    peer = {**row, "framework": "torch, eager", "parameters": 17, "version": "2.9"}
    failed = {**row, "framework": "torch, compiled", "failed": "InductorError: no compiler"}
    keys = ("framework", "network", "encoder_depth", "method", "precision", "batch", "crop")
    full = {key: row[key] for key in keys} | {"batch": 512, "failed": "RESOURCE_EXHAUSTED: step"}
    result["rows"] += [{**peer, "jax_over_peer": 0.75}, failed, full]
    (tmp_path / "train.json").write_text(json.dumps(result))
    scaling = json.loads((folder / "scaling.json").read_text())
    scaling["machine"]["device"] = "another"
    kind, at = scaling["rows"][-1]["kind"], scaling["rows"][-1]["at"]
    scaling["rows"][-1] = {"kind": kind, "at": at, "failed": "RESOURCE_EXHAUSTED"}
    (tmp_path / "scaling.json").write_text(json.dumps(scaling))
    (tmp_path / "NOTES.md").write_text("What the profiler says.")
    assert _run("report", f"--results={tmp_path}").returncode == 0
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert any("torch, eager" in line and "0.75" in line and "2.9" in line for line in lines)
    assert any("failed: InductorError: no compiler" in line for line in lines)
    assert any("512 x 64" in line and "failed: RESOURCE_EXHAUSTED: step" in line for line in lines)
    # Two devices in one folder: each row says its own.
    assert sum(line.startswith("| small_unet on cpu") for line in lines) == 4
    assert f"{kind} {at} failed: RESOURCE_EXHAUSTED" in lines
    assert lines[-1] == "What the profiler says."


def test_paths_of_data_are_timed(tmp_path):
    output = tmp_path / "r.json"
    flags = ("--slices=2", "--size=2304,2304", "--parts=crops", "--seconds=0.1")
    done = _run("data_loading", f"--data={tmp_path}", f"--output={output}", *flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [row["ratio"] > 0 for row in rows] == [True] * 5
    assert rows[0]["way"] == "plain reader" and rows[0]["ratio"] == 1
    assert all(row["crops_per_second"]["median"] > 0 for row in rows)


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
    found = json.loads((tmp_path / "data_loading.json").read_text())
    assert found["failed"].startswith("exit status 1: ") and "Error" in found["failed"]
    assert _run("report", f"--results={tmp_path}").returncode == 0
    text = (tmp_path / "README.md").read_text()
    assert "**data_loading failed**, exit status 1: " in text
    assert "python benchmarks/data_loading.py --data=DIR/data" in text


def test_an_empty_folder_has_no_report(tmp_path):
    done = _run("report", f"--results={tmp_path}")
    assert done.returncode != 0 and "holds no *.json" in done.stderr
