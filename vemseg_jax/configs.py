"""The experiments that come with the package: `get("unet")`, `names()`.

Each is a Python file of the top-level folder `configs/`, which is installed with the package. This
module stands for that folder, so `import vemseg_jax.configs.unet` works too, in a clone and from a
wheel.
"""

import ast
import dataclasses
import importlib.machinery
import importlib.resources
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vemseg_jax
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

if TYPE_CHECKING:
    from vemseg_jax.config import ExperimentConfig

__all__ = ["get", "names"]

FOLDER = "configs"
_RIGHT = "give a Python file whose get_config() returns an ExperimentConfig, or one of the"
# A line of the docstring of an experiment, such as "parameters: 269,009".
_ENTRY = re.compile(r"^(network|parameters|meant for): (.+)$", re.MULTILINE)


def config_folder() -> Path | None:
    """The folder of the experiments: of a clone, or installed with the package."""
    root = Path(vemseg_jax.__file__).parent
    installed = importlib.resources.files(vemseg_jax) / FOLDER
    for folder in (root.parent / FOLDER, Path(str(installed))):
        if (folder / "small_unet.py").is_file():
            return folder
    return None


# Makes a package of this module, with the experiments as its modules.
__path__ = [str(folder) for folder in (config_folder(),) if folder is not None]


def names() -> list[str]:
    """The names of the experiments, sorted."""
    folder = config_folder()
    return sorted(path.stem for path in folder.glob("*.py")) if folder else []


def get(name: str | os.PathLike[str]) -> "ExperimentConfig":
    """An experiment, made anew by each call, so its fields can be changed.

    ```python
    config = vemseg_jax.configs.get("small_unet")
    config.data.volume = "my.zarr"
    ```

    Args:
      name: of an experiment of this package, see `names`, or the path of a Python file whose
        `get_config()` returns an `ExperimentConfig`.

    Raises:
      InputError: there is no such experiment, or the file returns something else. What the code of
        the file raises comes out as it is.
    """
    from vemseg_jax.config import ExperimentConfig

    path = config_file(name, flag="")
    config = load_module(path).get_config()
    if not isinstance(config, ExperimentConfig):
        found = type(config).__name__
        raise InputError(f"{path}: get_config() returns {found}; return an ExperimentConfig")
    return config


def config_file(text: str | os.PathLike[str], *, flag: str) -> Path:
    """The file that is meant: a path, or an experiment of the package by its name.

    `small_unet`, `small_unet.py` and `configs/small_unet.py` are the same where the current
    folder has no such file.

    Args:
      text: as the user wrote it.
      flag: that it was given with, such as "--config", for the message; "" without one.

    Raises:
      InputError: there is none.
    """
    path = local_path(text, flag=flag)
    if path.is_file():
        return path
    folder, given = config_folder(), Path(text)
    if folder is not None and (given.parent == Path() or given.parts[:-1] == (FOLDER,)):
        named = folder / f"{given.name.removesuffix('.py')}.py"
        if named.is_file():
            return named
    known = ", ".join(names()) or "none here"
    head = f"{flag}={os.fspath(text)}" if flag else f"experiment {os.fspath(text)!r}"
    raise InputError(
        f"{head} could not be loaded: no such file; {_RIGHT} experiments of this package: {known}"
    )


def load_module(file: str | os.PathLike[str]) -> Any:
    """The file of an experiment as a module; raises whatever its code raises."""
    loader = importlib.machinery.SourceFileLoader("config", os.fspath(file))
    spec = importlib.util.spec_from_loader("config", loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses that a configuration defines look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclasses.dataclass(frozen=True)
class Summary:
    """An experiment in a line of a table.

    Attributes:
      name: for `get` and `--config`.
      network: what it trains, in words.
      parameters: how many the network has, such as "269,009" or "2 x 2,017,937".
      meant_for: "CPU" or "GPU".
    """

    name: str
    network: str
    parameters: str
    meant_for: str


def summaries() -> list[Summary]:
    """All experiments, sorted by name, as the docstrings of their files describe them.

    Raises:
      InputError: a docstring lacks one of the lines "network:", "parameters:", "meant for:".
    """
    found = []
    for name in names():
        path = config_file(name, flag="")
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        entries = dict(_ENTRY.findall(doc))
        if missing := {"network", "parameters", "meant for"} - set(entries):
            raise InputError(f"{path}: the docstring has no line {min(missing)!r}; add it")
        found.append(Summary(name, entries["network"], entries["parameters"], entries["meant for"]))
    return found


def table() -> str:
    """All experiments as a table of aligned columns: name, network, parameters, meant for."""
    head = ("config", "network", "parameters", "meant for")
    rows = [head, *(dataclasses.astuple(each) for each in summaries())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, network, parameters, meant_for in rows:
        cells = (name.ljust(widths[0]), network.ljust(widths[1]), parameters.rjust(widths[2]))
        lines.append("  ".join((*cells, meant_for)).rstrip())
    return "\n".join(lines)
