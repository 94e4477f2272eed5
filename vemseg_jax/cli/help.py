"""What `--help` prints: what the command does, examples, and each of its own flags."""

import difflib
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from vemseg_jax.cli.config_help import config_lines
from vemseg_jax.cli.examples import EXAMPLES
from vemseg_jax.commands import WIDTH, program, quoted, wrapped

WORDS = ("--help", "-help", "-h", "--h", "-?", "--helpshort")
_PACKAGE = "vemseg_jax."
# What absl adds to the help of a flag.
_ABSL_CHOICES = re.compile(r"^<[^>]*>: ")
_ABSL_MULTI = "; repeat this option to specify a list of values"
# A help that begins with the form of the value, such as NAME=PATH.
_FORM = re.compile(r"[A-Z]{3,}[=,:][A-Z0-9,:]+")
# Of the letters of two names, for one to be offered in place of the other.
_ALIKE = 0.6


def wants_help(argv: Sequence[str], words: Sequence[str] = WORDS) -> bool:
    """Whether help is asked for, anywhere before a lone `--`."""
    given = list(argv[1:])
    if "--" in given:
        given = given[: given.index("--")]
    return any(word in words for word in given)


def own_flags() -> list[flags.Flag]:
    """The flags of the command that runs, in the order in which it defines them."""
    found = []
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        # What is defined in the program itself goes by the name that it was started with.
        if module == sys.argv[0] or module.startswith(_PACKAGE):
            found += [each for each in defined if "." not in each.name]
    return found


def help_text(module: str, doc: str) -> str:
    """The whole page, lines of at most 100 columns.

    Args:
      module: name of the module of the command, such as "vemseg_jax.cli.train".
      doc: its docstring.
    """
    name = f"vemseg-{module.rpartition('.')[2].replace('_', '-')}"
    own = own_flags()
    lines = [*_about(name, doc), "", "Usage:", _usage(name, own, doc), ""]
    if name in EXAMPLES:
        lines += ["Examples:", *_examples(name), ""]
    lines.append("Flags:")
    for flag in own:
        lines += flag_lines(flag)
    if any(flag.parser.flag_type() == "config object" for flag in own):
        lines += ["", *config_lines(flags.FLAGS)]
    lines += ["", "--helpfull lists the flags of the libraries too (log, debugger)."]
    return "\n".join(lines)


def _about(name: str, doc: str) -> list[str]:
    text = re.sub(r"`([^`]*)`", r"\1", doc).strip()
    head, _, rest = text.partition("\n\n")
    head = " ".join(head.split())
    if not head.startswith("vemseg-"):
        head = f"{name}: {head[0].lower()}{head[1:]}"
    lines = textwrap.wrap(head, WIDTH)
    for paragraph in filter(None, rest.split("\n\n")):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), WIDTH)]
    return lines


def _usage(name: str, own: Sequence[flags.Flag], doc: str) -> str:
    words = [program(name), *(["VOLUME"] if "VOLUME`" in doc else [])]
    words += [f"--{flag.name}={_value(flag)}" for flag in own if is_required(flag)]
    return wrapped([*words, "[flags]"], indent="  ")


def _examples(name: str) -> list[str]:
    lines = []
    for comment, example in EXAMPLES[name]:
        words = [program(name), *(quoted(word) for word in shlex.split(example))]
        lines += [f"  # {comment}", wrapped(words, indent="  ")]
    return lines


def flag_lines(flag: flags.Flag) -> list[str]:
    """`--name=VALUE`, its default, and what it is for."""
    head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}={_value(flag)}"
    text = explanation(flag)
    notes = [note for note in (_default(flag, text), *_limits(flag)) if note]
    note = f"  ({'; '.join(notes)})" if notes else ""
    return [head + note, *textwrap.wrap(text, WIDTH, **_margin(6))]


def explanation(flag: flags.Flag) -> str:
    """The help of a flag without what absl adds to it."""
    text = " ".join((flag.help or "").split())
    return _ABSL_CHOICES.sub("", text).removesuffix(_ABSL_MULTI)


def _margin(width: int) -> dict[str, Any]:
    return {
        "initial_indent": " " * width,
        "subsequent_indent": " " * width,
        "break_long_words": False,
        "break_on_hyphens": False,
    }


def _value(flag: flags.Flag) -> str:
    parser = flag.parser
    if values := getattr(parser, "enum_values", None):
        return "|".join(values)
    kind = parser.flag_type()
    if found := _FORM.match(explanation(flag)):
        return found[0].rstrip(":,")
    if "list" in kind:
        return "A,B,..."
    return {"int": "N", "float": "NUMBER", "config object": "FILE"}.get(kind, "...")


def _limits(flag: flags.Flag) -> list[str]:
    found = ["can be repeated"] if isinstance(flag, flags.MultiFlag) else []
    low = getattr(flag.parser, "lower_bound", None)
    high = getattr(flag.parser, "upper_bound", None)
    if low is not None and high is not None:
        found.append(f"{low:g} to {high:g}")
    elif low is not None:
        found.append(f"at least {low:g}")
    return found


def is_required(flag: flags.Flag) -> bool:
    """Whether the command does not start without it."""
    return any("must have a value" in str(each.message) for each in flag.validators)


def _default(flag: flags.Flag, text: str) -> str:
    if is_required(flag):
        return "required"
    if flag.boolean:
        return f"default: {'on' if flag.default else 'off'}"
    if flag.default in (None, "", []):
        return "" if "default" in text else "default: none"
    value = flag.default
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return f"default: {value:g}" if isinstance(value, float) else f"default: {value}"


def near_flags(name: str) -> list[str]:
    """Own flags whose names look like `name`, the nearest first."""
    names = [flag.name for flag in own_flags()]
    given = name.lower().replace("-", "_")
    inside = [n for n in names if len(given) > 2 and (given in n or (len(n) > 2 and n in given))]
    alike = difflib.get_close_matches(given, names, n=3, cutoff=_ALIKE)
    return list(dict.fromkeys([n for n in names if n == given] + alike + inside))[:3]
