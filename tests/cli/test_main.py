"""`vemseg COMMAND`: the one program whose sub-commands are all others."""

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.commands import COMMANDS
from tests.cli.stopped import stopped, training_flags
from vemseg_jax import __version__, commands
from vemseg_jax.cli import main

START = "import sys; from vemseg_jax.cli.main import entry; sys.argv[0] = {!r}; entry()"


def vemseg(*arguments, program="/nowhere/vemseg"):
    """Runs the console script in a process of its own, as if it lay at `program`."""
    return subprocess.run(
        [sys.executable, "-c", START.format(str(program)), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_program_is_a_sub_command():
    assert {f"vemseg-{name}" for name in main.COMMANDS} == set(COMMANDS)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_the_commands_with_a_line_each(word):
    done = vemseg(word)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for name, what in main.COMMANDS.items():
        assert sum(line.split() == [name, *what.split()] for line in lines) == 1
    assert max(map(len, lines)) <= commands.WIDTH


def test_the_version():
    done = vemseg("--version")
    assert (done.returncode, done.stdout) == (0, f"vemseg-jax {__version__}\n")


def test_a_command_that_does_not_exist_is_refused_in_one_line():
    done = vemseg("trian", "--workdir=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: vemseg trian: there is no such command (is it train?);")
    assert done.stderr.endswith(f"choose from: {', '.join(main.COMMANDS)}\n")
    assert done.stderr.count("\n") == 1


def test_no_command_at_all_lists_them():
    done = vemseg()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{main.help_text()}\n"


def test_help_of_a_command_names_it_as_it_was_called(tmp_path):
    program = tmp_path / "vemseg"
    program.touch(mode=0o755)
    done = vemseg("train", "--help", program=program)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.replace("\\\n", " ").split())
    assert f"Usage: {program} train --config=FILE --workdir=... [flags]" in words
    assert "--[no]list_configs" in done.stdout


def test_errors_of_a_command_are_its_own():
    done = vemseg("import-weights", "--zzz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --zzz: there is no such flag; --help explains every flag\n"


def test_commands_to_type_are_those_of_the_one_program(tmp_path, monkeypatch):
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("vemseg", "vemseg-predict"):
        (programs / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", [".venv/bin/vemseg train", "--workdir=x"])
    assert commands.command("vemseg-predict", "--volume=v") == (
        ".venv/bin/vemseg predict --volume=v"
    )
    from vemseg_jax.cli import interrupt

    assert interrupt.is_command() and interrupt.command() == ".venv/bin/vemseg train --workdir=x"
    monkeypatch.setenv("PATH", str(programs))
    assert commands.program("vemseg-import-weights") == "vemseg import-weights"
    # Not installed: as a module.
    monkeypatch.setenv("PATH", "/nowhere")
    (programs / "vemseg").unlink()
    python = ".venv/bin/python"
    assert commands.program("vemseg-view") == f"{python} -m vemseg_jax.cli.main view"
    # The programs of their own are named as before.
    monkeypatch.setattr(sys, "argv", [".venv/bin/vemseg-train"])
    assert commands.program("vemseg-predict") == ".venv/bin/vemseg-predict"


def test_training_that_is_interrupted_says_how_to_go_on(tmp_path):
    program, flags = tmp_path / "vemseg", training_flags(tmp_path)
    program.write_text(f"#!{sys.executable}\nfrom vemseg_jax.cli.main import entry\nentry()\n")
    program.chmod(0o755)
    command = ["train", *flags]
    errors = stopped([program, *command], signal.SIGTERM)
    assert errors[-1].endswith(f"; to continue: {program} {' '.join(command)}"), errors
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["step"] == 1
