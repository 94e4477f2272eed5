import json
import shutil
import subprocess
import sys

import pytest

from tests.data.check import test_check as volumes


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vemseg_jax.cli.check", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return volumes.write(tmp_path_factory.mktemp("cli") / "v.zarr")


def test_fine_with_warnings_unless_strict(volume, tmp_path):
    files = [f"--report={tmp_path / 'r.json'}", f"--plot={tmp_path / 'p.png'}"]
    done = run(volume, *files)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "r.json").read_text())
    assert [f["topic"] for f in record["findings"]] == ["crop_size"]
    assert record["findings"][0]["message"] in done.stdout
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert run(f"--volume={volume}", "--strict").returncode == 1
    assert run(volume, "--strict", "--crop_size=32").returncode == 0


def test_crops_are_those_of_the_experiment(volume):
    """Without a flag those of the one that suits this machine; a file's own where it is named."""
    out = run(volume).stdout
    assert "crops of 256 (those of small_unet, which suits this machine" in out
    assert (
        "crops of 128 (those of ssl_resunet_small.py)"
        in run(volume, "--config=ssl_resunet_small").stdout
    )
    assert "crops of 32 (--crop_size)" in run(volume, "--crop_size=32").stdout


def test_errors_fail(volume, tmp_path):
    path = tmp_path / "v.zarr"
    shutil.copytree(volume, path)
    shutil.rmtree(path / "0" / "c" / "7")
    done = run(path)
    assert done.returncode == 1
    assert "error: image files of slices 7 " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one volume"),
        (["absent.zarr"], "absent.zarr"),
        (["VOLUME", "other.zarr"], "unexpected argument 'other.zarr'"),
        (["VOLUME", "--volume=VOLUME"], "give one volume"),
        (["VOLUME", "--z_range=3-5"], "--z_range=3-5"),
        (["VOLUME", "--report=r.txt"], "--report=r.txt"),
        (["VOLUME", "--structures=cells"], "no label 'cells'"),
    ],
)
def test_bad_input_gets_one_line(volume, arguments, message):
    done = run(*[a.replace("VOLUME", str(volume)) for a in arguments])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
