"""Commands as the user can type them: what is printed works when it is pasted."""

import os
import re
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

WIDTH = 100
# The program whose sub-commands are all others: `vemseg train` is `vemseg-train`.
ENTRY = "vemseg"
_INDENT = " " * 4
# Within double quotes a shell takes these for more than themselves.
_NOT_IN_QUOTES = set('"$`\\!')


def program(name: str) -> str:
    """How a program of this package, such as "vemseg-train", is started from the current folder.

    Its plain name where a shell finds the one of this installation by it; else its path; else
    Python with the module, where no program is installed. Where this process was started as
    `vemseg COMMAND`, that form: `vemseg train`.
    """
    if Path(sys.argv[0]).name.startswith(f"{ENTRY} "):
        return f"{_program(ENTRY)} {name.removeprefix(f'{ENTRY}-')}"
    return _program(name)


def _program(name: str) -> str:
    folders = [os.path.dirname(os.path.abspath(p)) for p in (sys.argv[0], sys.executable) if p]
    on_path = shutil.which(name)
    for folder in folders:
        path = os.path.join(folder, name)
        if not os.access(path, os.X_OK):
            continue
        if on_path is not None and os.path.samefile(on_path, path):
            return name
        return quoted(shown(path))
    if on_path is not None:
        return name
    module = "main" if name == ENTRY else name.removeprefix(f"{ENTRY}-").replace("-", "_")
    return f"{quoted(shown(sys.executable))} -m vemseg_jax.cli.{module}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path from the current folder where it lies in there, else as it is, absolute."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative.split(os.sep)[0] == ".." else relative


def quoted(text: str) -> str:
    """One word for a POSIX shell; in double quotes where it holds single ones."""
    if "'" in text and not _NOT_IN_QUOTES & set(text):
        return f'"{text}"'
    return shlex.quote(text)


def command(name: str, *arguments: str | Path) -> str:
    """A command to paste, broken with backslashes where a line would be longer than 100 columns.

    Args:
      name: of the program.
      *arguments: as the program is to get them; a path alone is written from the current folder.
    """
    words = [shown(word) if isinstance(word, Path) else word for word in arguments]
    return wrapped([program(name), *(quoted(word) for word in words)])


def wrapped(words: list[str], *, indent: str = "") -> str:
    """Words that are quoted already, in lines that a shell joins again."""
    lines, line = [], indent + words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > WIDTH - 4:
            lines.append(f"{line} \\")
            line = indent + _INDENT + word
        else:
            line += f" {word}"
    return "\n".join([*lines, line])


def install(extra: str) -> str:
    """The command that installs what an extra of this package asks for, into this environment."""
    try:
        lines = metadata.requires("vemseg-jax") or []
    except metadata.PackageNotFoundError:
        lines = []
    wanted = [
        requirement.strip()
        for requirement, _, condition in (line.partition(";") for line in lines)
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", condition)
    ]
    words = [sys.executable, "-m", "pip", "install", *(wanted or [f"vemseg-jax[{extra}]"])]
    return " ".join([quoted(shown(words[0])), *map(quoted, words[1:])])
