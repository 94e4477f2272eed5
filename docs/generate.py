"""Writes the pages of the reference that follow from the code: commands and configuration.

mkdocs runs this file as a hook. `python docs/generate.py FOLDER` writes the pages into a folder.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import runpy
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from vemseg_jax.cli.config_help import field_docs  # noqa: E402
from vemseg_jax.cli.examples import EXAMPLES  # noqa: E402
from vemseg_jax.cli.help import explanation, flag_lines, own_flags  # noqa: E402
from vemseg_jax.commands import quoted, wrapped  # noqa: E402
from vemseg_jax.config import ExperimentConfig, differences, plain  # noqa: E402
from vemseg_jax.models.registry import MODELS, model_name  # noqa: E402

# What is set in code within the help of a flag: other flags, forms of values, files, names.
_CODE = re.compile(
    r"(?<![\w`-])(--[a-z][\w.]*\w(?:=[^\s;()]*[\w+])?|[A-Z]{4,}=[A-Z]+|[\w/]*\w\.(?:py|zarr|tif)\b"
    r"|\w+_\w+)(?![\w`])"
)


@functools.cache  # a module defines its flags once, and mkdocs may build more than once
def pages() -> dict[str, str]:
    """The text of every generated page, by its path within `docs/`."""
    return {
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
    }


def on_files(files: Any, config: Any) -> Any:
    """The hook of mkdocs: adds the generated pages to the site."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def commands_page() -> str:
    """Every command: what it does, examples, and all of its flags."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        "# Commands",
        "",
        "Every command prints this page's section with `--help`. A flag is written `--name=value`;",
        "one that is on or off is written `--name` or `--noname`. Exit status: 0 done, 1 done in",
        "part, 2 input that cannot be used, 130 interrupted. What a command cannot use it refuses",
        "with one line that says what was found and what would be right.",
    ]
    for name, target in scripts["scripts"].items():
        lines += ["", *_command(name, target.partition(":")[0])]
    return "\n".join(lines) + "\n"


def _command(name: str, module_name: str) -> Iterator[str]:
    module = importlib.import_module(module_name)
    # Flags of the commands before it are gone, as two commands may give one name to a flag.
    own = own_flags()
    yield f"## {name}"
    yield ""
    about = (module.__doc__ or "").strip().removeprefix(f"`{name}`: ")
    yield about[0].upper() + about[1:]
    if name in EXAMPLES:
        yield "\n```sh"
        for comment, example in EXAMPLES[name]:
            yield f"# {comment}"
            yield wrapped([name, *(quoted(word) for word in shlex.split(example))])
        yield "```"
    yield ""
    for flag in own:
        head, _, note = flag_lines(flag)[0].strip().partition("  (")
        yield f"`{head}`{f' ({note}' if note else ''}"
        yield f":   {_marked(explanation(flag))}\n"
    if any(flag.name == "config" and flag.parser.flag_type() == "config object" for flag in own):
        yield "Every [field of the configuration](configuration.md) is a flag too:"
        yield "`--config.GROUP.NAME=VALUE`."
    for flag in own:
        delattr(flags.FLAGS, flag.name)


def configuration_page() -> str:
    """Every field of an experiment and of every network, and what the experiments set."""
    default = ExperimentConfig(model=None)
    lines = [
        "# Configuration",
        "",
        "An experiment is a Python file whose `get_config()` returns an `ExperimentConfig`. Every",
        "field is a flag of `vemseg-train` and `vemseg-import-weights`, such as",
        "`--config.train.steps=2000`. `vemseg-train --config=NAME --help` prints the values of an",
        "experiment.",
    ]
    for group in dataclasses.fields(default):
        part = getattr(default, group.name)
        if dataclasses.is_dataclass(part):
            lines += ["", f"## {group.name}", "", *_about(type(part)), ""]
            lines += _fields(f"config.{group.name}", part)
    lines += ["", "## model", "", "The fields of `--config.model` are those of the network."]
    for name, entry in MODELS.items():
        lines += ["", f"### {name}", "", *_about(entry.config), ""]
        lines += _fields("config.model", entry.config())
    return "\n".join([*lines, "", *_experiments()]) + "\n"


def _about(kind: type) -> list[str]:
    text = (inspect.getdoc(kind) or "").partition("Attributes:")[0].strip()
    return [f"`{kind.__name__}`: {text}"]


def described(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass, and of those it builds on, say of each field."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            found |= field_docs(each)
    return found


def _fields(prefix: str, part: Any) -> Iterator[str]:
    docs = described(type(part))
    yield "| field | default | meaning |"
    yield "|---|---|---|"
    for field in dataclasses.fields(part):
        text = docs.get(field.name, "").replace("|", "\\|")
        yield f"| `--{prefix}.{field.name}` | `{getattr(part, field.name)!r}` | {text} |"


def _experiments() -> Iterator[str]:
    """What every experiment of the package sets, where it is not the default."""
    yield "## Experiments"
    yield ""
    yield "The experiments that come with the package, and the values that are not the defaults."
    for path in sorted((ROOT / "configs").glob("*.py")):
        loaded = runpy.run_path(str(path))
        if "get_config" not in loaded:
            continue
        config = loaded["get_config"]()
        default = plain(ExperimentConfig(model=type(config.model)()))
        changed = [line.partition(" -> ") for line in differences(default, plain(config))]
        yield f"\n### --config={path.stem}\n"
        yield textwrap.dedent(loaded["__doc__"] or "").strip()
        yield f"\n- network: `{model_name(config.model)}`"
        for left, _, value in changed:
            yield f"- `{left.partition(':')[0]}`: `{value}`"


def _marked(text: str) -> str:
    """The help of a flag as Markdown: names of flags and of other things in code."""
    text = text.replace("<", "&lt;").replace("*", "\\*")
    return "".join(
        part if n % 2 else _CODE.sub(r"`\1`", part)
        for n, part in enumerate(re.split(r"(`[^`]*`)", text))
    )


def main(folder: Path) -> None:
    """Writes the pages into a folder."""
    for path, text in pages().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
