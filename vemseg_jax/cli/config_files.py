"""`--config` on the command line: the experiments of the package by name, from any folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from vemseg_jax import configs

_FLAG = "--config"


def config_file(text: str) -> Path:
    """The file that `--config` names: a path, or an experiment of the package by its name.

    Raises:
      InputError: there is none.
    """
    return configs.config_file(text, flag=_FLAG)


def with_config_files(argv: Sequence[str]) -> list[str]:
    """The arguments with `--config` as an absolute path; what follows a colon is left as it is.

    Raises:
      InputError: there is no such file.
    """
    found = list(argv)
    for n, word in enumerate(found):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name not in (_FLAG, _FLAG[1:]):
            continue
        if not equals:
            if n + 1 < len(found):
                found[n + 1] = _resolved(found[n + 1])
            continue
        found[n] = f"{_FLAG}={_resolved(value)}"
    return found


def _resolved(value: str) -> str:
    path, colon, argument = value.rpartition(":") if ".py:" in value else (value, "", "")
    return f"{os.fspath(config_file(path))}{colon}{argument}"
