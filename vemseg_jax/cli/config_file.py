"""Loading the file of `--config`, with errors that name the file, the line, and the field."""

import dataclasses
import difflib
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from vemseg_jax.config import ExperimentConfig
from vemseg_jax.configs import load_module

_RIGHT = (
    "give a Python file whose get_config() returns an ExperimentConfig, such as configs/unet.py"
)


class ConfigFileError(Exception):
    """A configuration that cannot be loaded; absl gives texts of its own to other errors."""


class Parser(config_flags.ConfigFileFlagParser):
    """Of the flag; looks at the file, and at the fields that the command line overrides."""

    def parse(self, path: str) -> ExperimentConfig:
        """The experiment of a file; what comes after a colon goes to its `get_config`.

        Raises:
          ConfigFileError: the file, or a field, is not there; or what went wrong in the file.
        """
        file, *argument = path.split(":", 1)
        could_not = f"--{self.name}={path} could not be loaded"
        if not Path(file).is_file():
            found = "is a folder" if Path(file).is_dir() else "no such file"
            raise ConfigFileError(f"{could_not}: {found}; {_RIGHT}")
        try:
            config = load_module(file).get_config(*argument)
        except Exception as error:  # the file is code: anything can come out of it
            raise ConfigFileError(f"{could_not}: {_place(error, file)}{_said(error)}") from error
        if not isinstance(config, ExperimentConfig):
            found = f"its get_config() returns {type(config).__name__}"
            raise ConfigFileError(f"{could_not}: {found}; {_RIGHT}")
        _check_overrides(config, self.name)
        return config


def _place(error: BaseException, file: str) -> str:
    """`line 7: ` of the file where it went wrong."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(file)]
    return f"line {lines[-1]}: " if lines else ""


def _said(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _check_overrides(config: Any, name: str) -> None:
    """Refuses `--config.a.b=...` where there is no such field, and names those there are."""
    for argument in flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False):
        match = re.match(rf"--?(?:no)?{name}\.([^=]+)", argument)
        if match is None:
            continue
        found, where = config, f"--{name}"
        for part in match[1].split("."):
            if not dataclasses.is_dataclass(found):
                break
            fields = [field.name for field in dataclasses.fields(found)]
            if part not in fields:
                raise ConfigFileError(_unknown(part, where, fields, config, name))
            found, where = getattr(found, part), f"{where}.{part}"


def _unknown(part: str, where: str, fields: list[str], config: Any, name: str) -> str:
    near = [f"{where}.{field}" for field in difflib.get_close_matches(part, fields, 3, 0.5)]
    sections = [f.name for f in dataclasses.fields(config)] if where != f"--{name}" else []
    near += [
        f"--{name}.{section}.{part}"
        for section in sections
        if any(f.name == part for f in dataclasses.fields(getattr(config, section)))
    ]
    # Abbreviations: lr is learning_rate.
    near += [
        f"{where}.{field}"
        for field in fields
        if part == "".join(word[0] for word in field.split("_")) and f"{where}.{field}" not in near
    ]
    asked = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{where}.{part}: Field {part} not found; {asked}{where} has {', '.join(fields)}"
