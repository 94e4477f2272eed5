import csv
import subprocess
import sys

import numpy as np
import pytest

from tests.measure.shapes import ellipsoid, write_labels

VOXEL = (50.0, 40.0, 40.0)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vemseg_jax.cli.measure", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    shape = (30, 60, 60)
    nuclei = ellipsoid(shape, VOXEL, (700.0, 1200.0, 1200.0), (600.0, 900.0, 800.0))
    nucleoli = ellipsoid(shape, VOXEL, (700.0, 1200.0, 1300.0), (200.0, 300.0, 300.0))
    labels = {"nuclei_pred": nuclei, "nucleoli_pred": nucleoli}
    return write_labels(
        tmp_path_factory.mktemp("cli") / "stack.zarr",
        {name: label.astype(np.uint8) for name, label in labels.items()},
        voxel_size=VOXEL,
        covered={"nuclei_pred": range(29)},
    )


def test_end_to_end(volume, tmp_path):
    done = run(
        f"--volume={volume}",
        "--nucleoli=nucleoli_pred",
        "--level=full",
        "--z_range=0:29",
        "--connectivity=6",
        "--min_nucleus_um3=0.5",
        "--min_nucleolus_um3=0.05",
        "--outside=flag",
        "--meshes=obj",
        "--memory_gib=0.1",
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "slices 0:29 at full scale, voxels of 50 x 40 x 40 nm (zyx), connectivity 6" in (
        done.stdout
    )
    assert f"written: {tmp_path / 'out'}" in done.stdout
    assert sorted(
        str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.*")
    ) == [
        "meshes/nucleolus_0001.obj",
        "meshes/nucleus_0001.obj",
        "nuclei.csv",
        "nucleoli.csv",
        "rendering.png",
        "summary.json",
    ]
    with (tmp_path / "out" / "nuclei.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["volume_um3"]) == pytest.approx(4 / 3 * np.pi * 0.6 * 0.9 * 0.8, rel=0.01)
    assert (row["touches_border"], row["nucleoli"]) == ("false", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--volume: missing"),
        (["--volume=absent.zarr"], "absent.zarr"),
        (["--volume=VOLUME", "--nuclei=cells"], "--nuclei=cells"),
        (["--volume=VOLUME", "--z_range=3-4"], "--z_range=3-4: give START:STOP"),
        (["--volume=VOLUME", "--memory_gib=0"], "--memory_gib=0.0: give a positive number"),
        (["--volume=VOLUME", "--connectivity=8"], "connectivity"),
        (
            ["--volume=VOLUME", "--nucleoli=nucleoli_pred"],
            "'nuclei_pred' has 0:29, 'nucleoli_pred' has 0:30",
        ),
    ],
)
def test_bad_flags_get_one_line(volume, arguments, message):
    done = run(*[argument.replace("VOLUME", str(volume)) for argument in arguments])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert [file.name for file in volume.parent.iterdir()] == ["stack.zarr"]
