"""What flags say of structures: `NAME=WHAT`, once per structure, or `WHAT` for all of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from vemseg_jax.cli.by_structure import ALL, name_and_rest
from vemseg_jax.cli.ranges import parse_slices
from vemseg_jax.errors import InputError


def _parts(texts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each `NAME=WHAT` between commas, as text, name (`ALL` without one) and what is said."""
    for text in texts:
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, equals, rest = (p.strip() for p in part.rpartition("="))
            yield part, name if equals else ALL, rest


def _add(found: dict[str, Any], name: str, value: object, *, flag: str, text: str) -> None:
    if name in found:
        who = f"{name} is given twice" if name else "is given twice for all structures"
        raise InputError(f"--{flag}={text}: {who}; join values by +, as in 1+2, and give it once")
    found[name] = value


def values_above_0(texts: Sequence[str]) -> dict[str, tuple[int, ...] | str]:
    """`--label_values`: numbers above 0, or "any", by structure.

    Raises:
      InputError: anything else.
    """
    example, found = "nuclei=1+2,nucleoli=2", dict[str, tuple[int, ...] | str]()
    for text, name, rest in _parts(texts):
        numbers = [part.strip() for part in rest.split("+")]
        if not name:
            raise InputError(f"--label_values={text}: must be like {example}")
        if rest != "any" and not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise InputError(
                f"--label_values={text}: must be once per structure, values above 0 joined by +,"
                f" or any, such as {example}"
            )
        value = rest if rest == "any" else tuple(int(n) for n in numbers)
        _add(found, name, value, flag="label_values", text=text)
    return found


def whole_numbers(
    texts: Sequence[str], *, flag: str, example: str, word: str | None = None
) -> dict[str, Any]:
    """Whole numbers joined by +, or `word`, by structure.

    Raises:
      InputError: anything else.
    """
    found: dict[str, Any] = {}
    for text, name, rest in _parts(texts):
        numbers = [part.strip() for part in rest.split("+")]
        if rest != word and not all(n.removeprefix("-").isdecimal() for n in numbers):
            other = f" or {word}" if word else ""
            raise InputError(
                f"--{flag}={text}: must be whole numbers joined by +{other}, such as"
                f" nuclei={example}, or {example} for all structures"
            )
        value = rest if rest == word else tuple(int(n) for n in numbers)
        _add(found, name, value, flag=flag, text=text)
    return found


def one_of(texts: Sequence[str], words: Sequence[str], *, flag: str) -> dict[str, str]:
    """One of some words, by structure.

    Raises:
      InputError: anything else.
    """
    found: dict[str, str] = {}
    for text, name, rest in _parts(texts):
        if rest not in words:
            raise InputError(
                f"--{flag}={text}: must be {' or '.join(words)}, such as nuclei={words[0]}, or"
                f" {words[0]} for all structures"
            )
        _add(found, name, rest, flag=flag, text=text)
    return found


def labelled_slices(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`--labelled_slices`: slice numbers and ranges, by structure; one structure a flag.

    Raises:
      InputError: anything else.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, rest = name_and_rest(text, flag="labelled_slices", example="nuclei=0,25,50")
        if name in found:
            raise InputError(f"--labelled_slices={text}: {name} is given twice; give it once")
        found[name] = parse_slices(rest, flag="labelled_slices")
    return found
