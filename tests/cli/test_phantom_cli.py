import subprocess
import sys

import numpy as np
import tifffile

from vemseg_jax.data.phantom.stack import Phantom, PhantomConfig


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vemseg_jax.cli.phantom", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_writes_the_stack_once(tmp_path):
    output = tmp_path / "stack"
    arguments = (
        f"--output={output}",
        "--preset=biopsy3",
        "--shape=2,64,80",
        "--voxel_size=40,100,100",
        "--seed=5",
    )
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    assert len(list(output.rglob("*.tif"))) == 6
    config = PhantomConfig("biopsy3", (2, 64, 80), (40.0, 100.0, 100.0), 5)
    want = Phantom(config).slice(1)
    np.testing.assert_array_equal(tifffile.imread(output / "images/slice_0001.tif"), want.image)

    again = run(*arguments)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith(f"error: output {output} exists")
    assert run(*arguments, "--overwrite").returncode == 0


def test_bad_flags_get_one_line(tmp_path):
    for arguments, message in (
        ((f"--output={tmp_path / 'a'}", "--preset=liver"), "'liver' is unknown"),
        ((f"--output={tmp_path / 'a'}", "--shape=2,x,80"), "--shape=2,x,80"),
        ((), "--output is missing"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert message in done.stderr
    assert not list(tmp_path.iterdir())
