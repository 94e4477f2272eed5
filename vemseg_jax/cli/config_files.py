"""The experiments that come with the package, by name from any folder."""

import importlib.resources
import os
from collections.abc import Sequence
from pathlib import Path

import vemseg_jax
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

FOLDER = "configs"
_FLAG = "--config"


def config_folder() -> Path | None:
    """The folder of the experiments: of a clone, or installed with the package."""
    root = Path(vemseg_jax.__file__).parent
    installed = importlib.resources.files(vemseg_jax) / FOLDER
    for folder in (root.parent / FOLDER, Path(str(installed))):
        if (folder / "small_unet.py").is_file():
            return folder
    return None


def config_names() -> list[str]:
    """The names of the experiments, sorted."""
    folder = config_folder()
    return sorted(path.stem for path in folder.glob("*.py")) if folder else []


def config_file(text: str) -> Path:
    """The file that `--config` names: a path, or an experiment of the package by its name.

    `small_unet`, `small_unet.py` and `configs/small_unet.py` are the same where the current
    folder has no such file.

    Raises:
      InputError: there is none.
    """
    path = local_path(text, flag=_FLAG)
    if path.is_file():
        return path
    folder, given = config_folder(), Path(text)
    if folder is not None and (given.parent == Path() or given.parts[:-1] == (FOLDER,)):
        named = folder / f"{given.name.removesuffix('.py')}.py"
        if named.is_file():
            return named
    known = ", ".join(config_names()) or "none here"
    raise InputError(
        f"{_FLAG}={text} could not be loaded: no such file; give a Python file whose get_config()"
        f" returns an ExperimentConfig, or one of the experiments of this package: {known}"
    )


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
