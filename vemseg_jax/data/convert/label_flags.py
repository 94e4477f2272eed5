"""What is said about labels on top of where they are: values, slices, and how these are counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vemseg_jax.data.convert.label_placing import ALL
from vemseg_jax.data.convert.label_values import OTHER_VALUES, MaskRule, Values
from vemseg_jax.errors import InputError

Value = TypeVar("Value")


@dataclass(frozen=True)
class LabelFlags:
    """What is said about labels, by structure; `ALL` stands for all that are not named.

    Attributes:
      values: of structures whose files are not binary.
      background: values that are background besides 0, or "others".
      unlabelled: values of pixels that nobody labelled.
      labelled_slices: slices, counted from 0, of structures whose stack is annotated on these only.
      unlabelled_slices: "empty" where slices without the structure are unlabelled, "none" where
        they are background.
      first_slice: the number of the first slice, where numbers count slices.
    """

    values: Mapping[str, Values] = field(default_factory=dict)
    background: Mapping[str, Values] = field(default_factory=dict)
    unlabelled: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    labelled_slices: Mapping[str, Sequence[int]] = field(default_factory=dict)
    unlabelled_slices: Mapping[str, str] = field(default_factory=dict)
    first_slice: int | None = None


def by_structure(flag: str, given: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    """What a flag says by structure, that for all structures filled in.

    Raises:
      InputError: there is no such structure.
    """
    for name in given:
        if name not in names and name != ALL:
            raise InputError(
                f"--{flag}={name}=…: no structure {name!r}; there are: {', '.join(names) or 'none'}"
            )
    if ALL in given and not names:
        raise InputError(f"--{flag}={given[ALL]}: needs labels; give --labels or --labels_csv")
    every = {name: given[ALL] for name in names} if ALL in given else {}
    return every | {name: value for name, value in given.items() if name != ALL}


def mask_rules(files: Mapping[str, set[str]], flags: LabelFlags) -> dict[str, MaskRule]:
    """What values mean, by structure.

    Args:
      files: label files of every structure; those who share one have one set of values.
      flags: what is said about them.

    Raises:
      InputError: a value has two meanings.
    """
    names = list(files)
    values = by_structure("label_values", flags.values, names)
    background = by_structure("background_values", flags.background, names)
    unlabelled = by_structure("unlabelled_value", flags.unlabelled, names)
    rules = {}
    for name in names:
        own, dark = values.get(name), background.get(name, ())
        lost = unlabelled.get(name, ())
        lost = (lost,) if isinstance(lost, int) else lost
        _check_meanings(name, own, dark, lost)
        elsewhere: dict[int, str] = {}
        if isinstance(own, tuple):
            for other in names:
                theirs = values.get(other)
                if other != name and isinstance(theirs, tuple) and files[name] & files[other]:
                    elsewhere |= {v: other for v in theirs if v not in (*own, *lost, *dark)}
        rules[name] = MaskRule(name, own, lost, dark, elsewhere)
    return rules


def _check_meanings(
    name: str, own: Values | None, background: Values, unlabelled: tuple[int, ...]
) -> None:
    if background == OTHER_VALUES and own is None:
        raise InputError(
            f"--background_values={name}=others: needs --label_values={name}=…, the values of the"
            " structure"
        )
    meanings = {
        "label_values": own,
        "background_values": background,
        "unlabelled_value": unlabelled,
    }
    by_value: dict[int, str] = {}
    for flag, values in meanings.items():
        for value in values if isinstance(values, tuple) else ():
            other = by_value.setdefault(value, flag)
            if other != flag:
                raise InputError(
                    f"--{flag}={name}={value}: --{other} has this value of {name} too; a value"
                    " has one meaning"
                )
