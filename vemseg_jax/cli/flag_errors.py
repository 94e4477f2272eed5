"""What is said of a flag that cannot be used."""

import difflib
import re
from collections.abc import Mapping

from absl import flags

from vemseg_jax.cli.help import explanation, near_flags, own_flags

_MISSING = re.compile(r"flag --(\w+)=None: Flag --\w+ must have a value other than None\.")
_NUMBER = re.compile(r"flag --([\w.]+)=(.*): (invalid literal for int|could not convert string to)")
_CHOICE = re.compile(r"flag --([\w.]+)=(.*): value should be one of <(.*)>")
_BOOLEAN = re.compile(r"flag --([\w.]+)=(.*): \('Non-boolean argument")
_HELP = "--help explains every flag"


def flag_message(error: Exception) -> str:
    """One line for whatever came out of parsing the flags."""
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown(error.flagname)
    text = " ".join(str(error).split())
    if missing := _MISSING.findall(text):
        return _absent(missing)
    if found := _CHOICE.search(text):
        choices = found[3].split("|")
        near = difflib.get_close_matches(found[2], choices, n=1)
        is_it = f" (is it {near[0]}?)" if near else ""
        return f"--{found[1]}={found[2]}: must be one of {', '.join(choices)}{is_it}"
    if found := _NUMBER.search(text):
        kind = "a whole number" if "int" in found[3] else "a number"
        return f"--{found[1]}={found[2]}: must be {kind}"
    if found := _BOOLEAN.search(text):
        return f"--{found[1]}={found[2]}: is on or off: write --{found[1]} or --no{found[1]}"
    if isinstance(error, KeyError | AttributeError | TypeError):
        return f"{type(error).__name__}: {text}"
    return text or type(error).__name__


def _unknown(name: str) -> str:
    near = near_flags(name.removeprefix("no")) or near_flags(name)
    is_it = f"; is it {' or '.join(f'--{each}' for each in near)}?" if near else ";"
    return f"--{name}: there is no such flag{is_it} {_HELP}"


def _absent(names: list[str]) -> str:
    helps: Mapping[str, str] = {flag.name: explanation(flag) for flag in own_flags()}
    first = helps.get(names[0], "")
    said = ", ".join(f"--{name}" for name in names)
    if len(names) > 1:
        return f"{said}: missing; {_HELP}"
    return f"{said}: missing. {first} ({_HELP})"
