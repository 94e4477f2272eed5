import json
import subprocess
import sys

import pytest

from tests.eval import volumes


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vemseg_jax.cli.evaluate", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return volumes.write_volume(tmp_path_factory.mktemp("cli") / "stack.zarr")


def test_end_to_end(volume, tmp_path):
    done = run(
        f"--volume={volume}",
        "--predictions=nuclei_pred",
        "--truth=nuclei=nuclei",
        "--z_ranges=0:4,4:12",
        "--exclude=0,1,11",
        "--level=full",
        "--overlay_slices=2,3",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "| nuclei    | 4:12 |" in done.stdout
    assert "training slices 0, 1, 11; validation slices 6" in done.stdout
    assert f"written: {tmp_path / 'out'}" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [s["slices_scored"] for s in summary["scores"]] == [8, 2, 6]
    assert summary["scores"][0]["dice_3d"] == 0.8
    assert summary["levels"] == {"nuclei": "full"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--volume: missing"),
        (["--volume=absent.zarr"], "absent.zarr"),
        (["--volume=VOLUME", "--z_ranges=0-4"], "--z_ranges: found '0-4'"),
        (["--volume=VOLUME", "--z_ranges=a:4"], "--z_ranges: found 'a'"),
        (["--volume=VOLUME", "--exclude=0,x"], "--exclude: found 'x'"),
        (["--volume=VOLUME", "--truth=nuclei"], "--truth: found 'nuclei'"),
        (["--volume=VOLUME", "--truth=nuclei=a,nuclei=b"], "--truth: 'nuclei' is given twice"),
    ],
)
def test_bad_flags_get_one_line(volume, arguments, message):
    done = run(*[argument.replace("VOLUME", str(volume)) for argument in arguments])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert [file.name for file in volume.parent.iterdir()] == ["stack.zarr"]
