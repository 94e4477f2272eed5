"""Which dimension of a stored array is z, y and x."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorstore as ts

from vemseg_jax.errors import InputError

SPATIAL = "zyx"
# May be there with length 1.
EXTRA = "ct"
MAX_SLICES = 10**6
# Of one slice.
MAX_PIXELS = 2**31


class GivenAxes(NamedTuple):
    """Axes from a flag.

    Attributes:
      text: one letter a dimension; None where the flag is not given.
      flag: its name.
      trusted: they win where the source records others.
      only_missing: they are meant for another source, and count here where it records none.
    """

    text: str | None
    flag: str = "axes"
    trusted: bool = False
    only_missing: bool = False


# What readers take: the value of `--axes`, or more about it.
Axes = GivenAxes | str | None


def given_axes(axes: Axes) -> GivenAxes:
    """The same, whichever way it was said."""
    return axes if isinstance(axes, GivenAxes) else GivenAxes(axes)


def resolve_axes(
    path: object, shape: Sequence[int], *, recorded: str | None, given: Axes
) -> tuple[str, str]:
    """The axes of an array, one letter a dimension, and where they are known from.

    Prints a warning where a trusted flag wins against the record.

    Args:
      path: of the source, for messages.
      shape: as stored.
      recorded: by the source, one letter or more a dimension; None where it does not.
      given: `--axes`.

    Raises:
      InputError: they are missing, contradict each other or do not fit the shape.
    """
    text, flag, trusted, only_missing = given_axes(given)
    if only_missing and text is not None and (recorded is not None or len(text) != len(shape)):
        text = None
    if text is not None:
        text = text.lower()
        _check_given(text, flag="axes" if only_missing else flag)
    if recorded is None:
        if text is None:
            example = "zyx" if len(shape) == 3 else "c" * (len(shape) - 3) + "zyx"
            raise InputError(
                f"{path}: does not record which axis is which (shape {_times(shape)}); give them in"
                f" this order, such as --{flag}={example[-len(shape) :]}"
            )
        return text, f"--{'axes' if only_missing else flag}={text}"
    recorded = recorded.lower()
    long_ones = "".join(a for a, n in zip(recorded, shape, strict=True) if a in SPATIAL or n != 1)
    if text is None or text in (recorded, long_ones):
        return recorded, f"recorded as {recorded}"
    if not trusted:
        raise InputError(
            f"--{flag}={text}: {path} records {recorded}; leave the flag out if the file is right,"
            " add --trust_flag if the flag is right"
        )
    print(f"warning: {path} records its axes as {recorded}; --trust_flag: --{flag}={text} is taken")
    return text, f"--{flag}={text}, against {recorded} in the source"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(int(n)) for n in shape)


def _check_given(given: str, *, flag: str) -> None:
    right = "each of z, y and x once, and c and t where their length is 1"
    known = set(given) <= set(SPATIAL + EXTRA) and set(SPATIAL) <= set(given)
    if not known or len(set(given)) != len(given):
        raise InputError(f"--{flag}={given}: must have {right}, such as --{flag}=zyx")


def check_shape(path: object, shape: Sequence[int]) -> tuple[int, int, int]:
    """`shape` zyx, as recorded, unless nothing or nothing sane is in it.

    Raises:
      InputError: it is empty, or so large that the record must be damaged.
    """
    z, y, x = (int(n) for n in shape)
    if min(z, y, x) < 1 or z > MAX_SLICES or y * x >= MAX_PIXELS:
        raise InputError(
            f"{path}: shape {_times(shape)} (z, y, x) is recorded; 1 to {MAX_SLICES} slices of less"
            f" than {MAX_PIXELS} pixels can be read: correct the record or export it again"
        )
    return z, y, x


def arrange(path: object, array: ts.TensorStore, axes: str) -> ts.TensorStore:
    """A view `[z, y, x]` from 0 of a stored array; nothing is read.

    Args:
      path: of the source, for messages.
      array: as stored, of any origin.
      axes: one letter a dimension; those beside z, y and x must have length 1.

    Raises:
      InputError: axes that are missing, or others that are longer.
    """
    shape = tuple(int(n) for n in array.shape)
    chunk = [n or 1 for n in array.chunk_layout.read_chunk.shape or ()]
    if math.prod(chunk) >= MAX_PIXELS:
        raise InputError(
            f"{path}: chunks of {_times(chunk)} are recorded; less than {MAX_PIXELS} values can be"
            " read at once: correct the record or export it again"
        )
    given = axes if len(axes) == len(shape) else None
    kept = [i for i, name in enumerate(axes) if name in SPATIAL or given is None or shape[i] != 1]
    if given is None or sorted(axes[i] for i in kept) != sorted(SPATIAL):
        raise InputError(
            f"{path}: axes {axes} of shape {shape}; z, y and x are needed, others only with"
            " length 1"
        )
    view = array[ts.d[:].translate_to[0]]
    view = view[tuple(slice(None) if i in kept else 0 for i in range(len(shape)))]
    left = [axes[i] for i in kept]
    view = view[ts.d[[left.index(name) for name in SPATIAL]].transpose[:]]
    check_shape(path, view.shape)
    return view
