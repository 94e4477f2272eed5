import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.view import volumes

pytest.importorskip("neuroglancer")
COMMAND = [sys.executable, "-m", "vemseg_jax.cli.view"]


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return volumes.write(tmp_path_factory.mktemp("cli") / "v.zarr")


def test_it_ends_after_some_seconds(volume):
    done = run(volume, "--seconds=0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 x 150 x 209 voxels of 50 x 8 x 9 nm" in done.stdout
    assert "shown: image, nuclei (annotation), nuclei_pred (prediction)" in done.stdout
    assert "hidden: nuclei_prob (probability), trial (prediction), ignore" in done.stdout
    assert re.search(r"^http://127\.0\.0\.1:\d+/v/\w{20,}/$", done.stdout, re.M)
    assert done.stdout.endswith("ended\n")


def test_it_serves_until_interrupted(volume):
    command = [*COMMAND, str(volume), "--layers=image", "--z=2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seen = ""
        while "Ctrl-C" not in seen:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += line
        url = re.search(r"^http\S+$", seen, re.M).group()
        with urllib.request.urlopen(url, timeout=20) as page:
            assert b"<script" in page.read()
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()  # else the block would wait for one that goes on serving
    assert (process.returncode, err) == (0, "")
    assert out.endswith("ended\n")
    assert "opens at slice 2" in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one volume"),
        (["absent.zarr"], "absent.zarr: no such volume"),
        (["VOLUME", "--volume=VOLUME"], "give one volume"),
        (["VOLUME", "--layers=cells"], "--layers: found 'cells'"),
        (["VOLUME", "--z=70"], "--z=70"),
        (["VOLUME", "--layout=cube"], "must be one of 4panel, xy, xz, yz"),
        (["VOLUME", "--port=70000"], "65535"),
    ],
)
def test_bad_input_gets_one_line(volume, arguments, message):
    done = run(*[a.replace("VOLUME", str(volume)) for a in arguments])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
