"""`vemseg`: every command of this package as a sub-command, such as `vemseg train`.

Each runs as the program of its own name does: `vemseg train --help` is `vemseg-train --help`.
"""

import difflib
import importlib
import os
import sys

import vemseg_jax
from vemseg_jax.commands import ENTRY, WIDTH
from vemseg_jax.errors import INPUT_ERROR_STATUS

# What each does, in the order of the work.
COMMANDS = {
    "quickstart": "everything once on a generated stack, in a few minutes",
    "phantom": "generates a stack with known nuclei and nucleoli",
    "convert": "makes a volume of a stack of slices and its labels",
    "check": "says what is in a volume and what stands against training on it",
    "preprocess": "aligns the slices of a volume and evens out their brightness",
    "train": "trains a network on the labelled slices of a volume",
    "import-weights": "makes a run of weights that torch saved",
    "predict": "segments the slices of a volume with a trained network",
    "evaluate": "scores the prediction on labelled slices that did not train",
    "measure": "measures nuclei and nucleoli of the whole volume",
    "view": "shows a volume with its labels and predictions in a browser",
    "study": "makes the tables and figures of the paper",
}
HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull", "help")


def help_text() -> str:
    """What `vemseg --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    assert max(map(len, lines)) <= WIDTH
    return "\n".join(
        [
            "vemseg: segments nuclei and nucleoli in volume electron microscopy",
            "",
            "Usage:",
            "  vemseg COMMAND [flags]",
            "",
            "Commands:",
            *lines,
            "",
            "vemseg COMMAND --help explains the flags of a command; vemseg --version prints the"
            " version.",
        ]
    )


def entry() -> None:
    """The console script: runs the command that the first argument names."""
    given = sys.argv[1:]
    if not given or given[0] in HELP:
        print(help_text(), file=sys.stdout if given else sys.stderr)
        sys.exit(0 if given else INPUT_ERROR_STATUS)
    if given[0] == "--version":
        print(f"vemseg-jax {vemseg_jax.__version__}")
        sys.exit(0)
    name = given[0].replace("_", "-")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        is_it = f" (is it {near[0]}?)" if near else ""
        print(
            f"error: {ENTRY} {given[0]}: there is no such command{is_it}; choose from:"
            f" {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(INPUT_ERROR_STATUS)
    # As a program of its own would be started, so that it finds its flags, and `commands.program`
    # how it was called.
    folder = os.path.dirname(sys.argv[0])
    sys.argv = [os.path.join(folder, f"{ENTRY} {name}"), *given[1:]]
    importlib.import_module(f"vemseg_jax.cli.{name.replace('-', '_')}").entry()


if __name__ == "__main__":
    entry()
