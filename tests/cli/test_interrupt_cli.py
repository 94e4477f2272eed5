"""The binaries under Ctrl-C and SIGTERM, and where they do not run at all."""

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.stopped import stopped, training_flags
from vemseg_jax.checkpoint import LATEST, Checkpoints
from vemseg_jax.commands import shown


def _run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_training_that_is_stopped_is_saved(tmp_path, number):
    flags, workdir = training_flags(tmp_path), tmp_path / "run"
    command = ["-m", "vemseg_jax.cli.train", *flags]
    errors = stopped([sys.executable, *command], number)
    said = [line for line in errors if "loss" not in line]
    assert said[0] == "stopping after this step, to save it; once more stops at once"
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = checkpoints.step(LATEST)
    logged = [json.loads(x)["step"] for x in (workdir / "log.jsonl").read_text().splitlines()]
    assert step >= 2 and logged == list(range(1, step + 1))
    assert said[1].startswith(f"stopped after step {step} of 100000, which is saved in {workdir}; ")
    assert said[1].endswith(f" {' '.join(command)}")
    assert (
        f"; to continue: {shown(sys.executable)} -m " in said[1]
        or "; to continue: python" in said[1]
    )
    assert len(said) == 2


SWALLOWS = """
import sys, time
sys.argv = ["vemseg-convert", "--images=my slices"]
from vemseg_jax.cli import app
def main():
    said = False
    while True:
        try:
            said = said or print("ready", flush=True) or True
            time.sleep(60)
        except KeyboardInterrupt:
            print("seen", flush=True)
sys.argv = sys.argv[:1]
import os
os.environ["GLIBC_TUNABLES"] = ""
app.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_ends_a_program_that_does_not_listen(number):
    with subprocess.Popen(
        [sys.executable, "-c", SWALLOWS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "seen\n"
        # More than what a launcher sends twice is apart.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (130, "stopped at once\n")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_an_interrupt_before_anything_is_one_line(number):
    script = (
        "import signal, sys; sys.argv = ['/usr/bin/vemseg-convert', '--images=my slices']\n"
        f"import vemseg_jax.cli; signal.raise_signal(signal.{number})"
    )
    done = _run(script)
    assert done.returncode == 130
    said, again = done.stderr.split("; to continue: ")
    assert said == "interrupted before anything was done"
    assert "convert" in again and again.endswith(" '--images=my slices'\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("KeyboardInterrupt", "interrupted: nothing was written"),
        ("Stopped('stopped after step 3')", "stopped after step 3"),
    ],
)
def test_what_is_kept_is_said(error, said):
    script = (
        "import os, sys; sys.argv = ['vemseg-x']; os.environ['GLIBC_TUNABLES'] = ''\n"
        "from vemseg_jax.cli import app\nfrom vemseg_jax.interrupts import Stopped\n"
        f"def main():\n    print('kept', flush=True)\n    raise {error}\napp.run(main)"
    )
    done = _run(script)
    assert (done.returncode, done.stdout) == (130, "kept\n")
    assert done.stderr.startswith(f"{said}; to continue: ") and done.stderr.count("\n") == 1


def test_programs_that_import_a_binary_keep_their_signals():
    script = (
        "import signal, sys; before = sys.excepthook\nimport vemseg_jax.cli.convert\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert sys.excepthook is before"
    )
    done = _run(script)
    assert done.returncode == 0, done.stderr


def test_windows_is_told_where_it_runs():
    script = (
        "import os, sys; sys.modules['fcntl'] = None; sys.argv = ['vemseg-check', 'a.zarr']\n"
        "os.environ['GLIBC_TUNABLES'] = ''\n"
        "from vemseg_jax.cli.check import entry; entry()"
    )
    done = _run(script)
    line = "error: vemseg runs on Linux, macOS and, on Windows, in WSL2\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
