import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from vemseg_jax.data.store.volume import FULL, open_volume

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 64, 64), np.uint8)
MASK = np.zeros((64, 64), np.uint8)
MASK[10:30, 20:50] = 1
MODULE = [sys.executable, "-m", "vemseg_jax.cli.convert"]
# The same binary, except that slice 3 never gets written.
# Hangs at slice 3, until an interrupt. Tells when the main thread has long been waiting for it: an
# interrupt at the very moment at which it begins to would be seen only after that slice.
HANGING = """
import pathlib, signal, sys, time
stop, waiting = [], pathlib.Path(sys.argv.pop(1))
from vemseg_jax.data.store import volume_writer
write = volume_writer.VolumeWriter.write
def hang(self, z, plane):
    while z == 3 and not stop:
        time.sleep(1)
        waiting.touch()
    write(self, z, plane)
volume_writer.VolumeWriter.write = hang
from vemseg_jax.cli.convert import entry
old = signal.getsignal(signal.SIGINT)
signal.signal(signal.SIGINT, lambda *a: (stop.append(1), old(*a)))
entry()
"""


def _start(waiting, flags, **pipes):
    command = [sys.executable, "-c", HANGING, str(waiting), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **pipes)


def _wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "images").mkdir()
    for z, plane in enumerate(IMAGES):
        tifffile.imwrite(tmp_path / "images" / f"s_{z}.tif", plane)
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "m_2.tif", MASK)
    tifffile.imwrite(tmp_path / "masks" / "m_4.tif", 2 * MASK)
    return [
        f"--images={tmp_path}/images",
        f"--output={tmp_path}/v.zarr",
        "--voxel_size=50,8,10",
        f"--labels=nuclei={tmp_path}/masks",
        "--label_values=nuclei=1+2",
        f"--ignore={tmp_path}/masks",
        "--ignore_dilation=2",
    ]


def _run(flags):
    return subprocess.run([*MODULE, *flags], capture_output=True, text=True, timeout=120)


def test_converts(tmp_path, flags):
    # What is recorded and what these say agree here: nothing changes.
    agreeing = ["--trust_flag", "--labels_axes=zyx", "--labels_offset=0,0,0"]
    result = _run([*flags, *agreeing])
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"done: {tmp_path}/v.zarr\n")
    assert "s_2.tif" in result.stdout
    volume = open_volume(tmp_path / "v.zarr")
    assert volume.voxel_size == (50, 8, 10)
    np.testing.assert_array_equal(volume.image(FULL).read().result(), IMAGES)
    assert volume.labelled_slices("nuclei") == (2, 4)
    assert volume.label("ignore", FULL)[2].read().result().sum() > MASK.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--voxel_size=50,8"], "--voxel_size=50,8: must be three lengths"),
        (["--voxel_size=a,b,c"], "--voxel_size=a,b,c: must be three lengths"),
        (["--labels=nuclei"], "--labels=nuclei: must be like nuclei=masks/"),
        (["--labels=x=/nowhere"], "/nowhere: no such file"),
        (["--label_values=nuclei=0"], "--label_values=nuclei=0: must be"),
        (["--label_values=nuclei"], "--label_values=nuclei: must be like"),
        (["--labelled_slices=nuclei=a"], "'a' is no slice number"),
        (["--images=/nowhere"], "/nowhere: no such file"),
        (["surplus"], "unexpected argument 'surplus'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, change, message):
    before = sorted(p.name for p in tmp_path.iterdir())
    result = _run([*flags, *change])
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_half_way_and_started_again(tmp_path, flags, overwrite):
    output, partial = tmp_path / "v.zarr", tmp_path / "v.zarr.partial"
    if overwrite:
        assert _run(flags).returncode == 0
        flags = [*flags, "--overwrite"]
    process = _start(tmp_path / "waiting", flags)
    try:
        _wait_for(partial / "0" / "c" / "2", process)
        busy = _run(flags)
        assert busy.returncode == 2
        assert "another process is writing it" in busy.stderr
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert partial.exists()
    assert output.exists() == overwrite
    if overwrite:
        np.testing.assert_array_equal(open_volume(output).image(FULL).read().result(), IMAGES)
    again = _run(flags)
    assert again.returncode == 0, again.stderr
    assert "removed what an interrupted conversion left" in again.stdout
    assert not partial.exists()
    np.testing.assert_array_equal(open_volume(output).image(FULL).read().result(), IMAGES)


def test_interrupt_leaves_nothing(tmp_path, flags):
    process = _start(tmp_path / "waiting", flags, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "waiting", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted: nothing was written, ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "masks", "waiting"]
