"""The fields of `--config`, explained by the docstrings of their dataclasses."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from absl import flags

from vemseg_jax.commands import WIDTH
from vemseg_jax.config import ExperimentConfig, ModelConfig

_FIELD = re.compile(r"^  (\w[\w, ]*): (.*)$")


def field_docs(kind: type) -> dict[str, str]:
    """What the section "Attributes" of a dataclass says of each field."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if match := _FIELD.match(line):
            names = [name.strip() for name in match.group(1).split(",")]
            found |= dict.fromkeys(names, match.group(2))
        elif line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


def config_lines(values: flags.FlagValues) -> list[str]:
    """Every field of the experiment: of the file that `--config` named, or the usual defaults."""
    given = _loaded(values)
    config = ExperimentConfig(model=ModelConfig()) if given is None else given
    source = "the usual defaults; --config=FILE --help shows those of a file and of its network"
    if given is not None:
        source = "the values of this --config"
    lines = textwrap.wrap(
        f"Fields of the experiment ({source}), each also a flag: --config.GROUP.NAME=VALUE", WIDTH
    )
    for group in dataclasses.fields(config):
        part = getattr(config, group.name)
        # Only a file says which network it is.
        if dataclasses.is_dataclass(part) and (given is not None or group.name != "model"):
            lines += _group_lines(f"config.{group.name}", part)
    return lines


def _loaded(values: flags.FlagValues) -> ExperimentConfig | None:
    try:
        config = values["config"].value
    except Exception:  # it is code of the user's
        return None
    return config if isinstance(config, ExperimentConfig) else None


def _group_lines(prefix: str, part: Any) -> Iterator[str]:
    docs = field_docs(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            continue
        yield f"  --{prefix}.{field.name}={value!r}"
        if field.name in docs:
            margin = " " * 6
            yield from textwrap.wrap(
                docs[field.name].replace("`", ""),
                WIDTH,
                initial_indent=margin,
                subsequent_indent=margin,
                break_on_hyphens=False,
            )
