"""What the numbers in names of label files mean: which slice, counted from 0 or from 1."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vemseg_jax.data.formats.file_names import nfc
from vemseg_jax.errors import InputError

# So many files must share a number before it is taken for that of a sample or a channel.
SHARED_BY = 3


class Count(NamedTuple):
    """From which number slices are counted, and how it is known."""

    first: int
    why: str

    @property
    def text(self) -> str:
        """Continues "numbers"."""
        return f"count slices from {self.first} ({self.why})"


def count_from(
    numbered: Mapping[int, str], depth: int, given: int | None, *, where: object
) -> Count:
    """The number of the first slice, from the numbers that slices were given.

    Args:
      numbered: number and what bears it, such as a file name.
      depth: slices there are.
      given: `--first_slice`, None where it is not given.
      where: folder or file of the numbers, for messages.

    Raises:
      InputError: a number is no slice, or the numbers fit both ways of counting.
    """
    fits = {first: _fits(numbered, depth, first) for first in (0, 1)}
    if given is not None:
        if not fits[given]:
            wrong = next(n for n in numbered if not given <= n < depth + given)
            raise InputError(
                f"{where}: {numbered[wrong]} has the number {wrong}, which is no slice; with"
                f" --first_slice={given} slices have the numbers {given} to {depth - 1 + given}"
            )
        return Count(given, f"--first_slice={given}")
    if fits[0] and fits[1]:
        n = min(numbered)
        raise InputError(
            f"{where}: its numbers may count slices from 0 or from 1: {numbered[n]} may be"
            f" slice z={n} or z={n - 1}; give --first_slice=0, or --first_slice=1, as Fiji and"
            " ImageJ count"
        )
    if fits[0]:
        return Count(0, "0 is one of them")
    if fits[1]:
        return Count(1, f"the last slice is {depth}")
    wrong = next((n for n in numbered if not 0 <= n <= depth), depth)
    beside = " beside one with 0" if wrong == depth else ""
    raise InputError(
        f"{where}: {numbered[wrong]} has the number {wrong}{beside}, which is no slice; slices are"
        f" numbered from 0 to {depth - 1}, or from 1 to {depth}"
    )


def _fits(numbers: Mapping[int, str], depth: int, first: int) -> bool:
    return all(first <= n < depth + first for n in numbers)


def check_rivals(
    names: Sequence[str],
    slices: Mapping[str, int] | int,
    *,
    image_names: Sequence[str] = (),
    folder: Path,
) -> None:
    """Refuses file names in which another number than the last one may be that of the slice.

    Copies get numbers at their end: `slice_4-1.tif` is what Fiji calls a duplicate of slice 4,
    `slice_4 copy 2.tif` is macOS, `slice_4_v2.tif` are people. A number of fewer digits than the
    last one, the same one in three files and more, or the same one in all images names a sample or
    a channel; a file named as its image belongs to it.

    Args:
      names: of the label files, each with a number at its end.
      slices: the slice of each number as written, or how many there are where numbers count them.
      image_names: where images are files.
      folder: of the files, for messages.

    Raises:
      InputError: such a name.
    """
    groups = {name: _numbers(name) for name in names}
    stems, images = {nfc(_stem(name)) for name in image_names}, [_numbers(n) for n in image_names]
    for name, (*earlier, last) in groups.items():
        if nfc(_stem(name)) in stems:
            continue
        for place, number in enumerate(earlier):
            if len(number) < len(last) or not _is_slice(number, slices) or number == last:
                continue
            if not _is_slice(last, slices):
                continue
            same = sum(
                len(other) == len(earlier) + 1 and other[place] == number
                for other in groups.values()
            )
            if same == len(names) >= SHARED_BY:
                continue
            if images and all(found[place : place + 1] == [number] for found in images):
                continue
            raise InputError(
                f"{folder / name}: may be the label of slice {number} or of slice {last}, as both"
                " numbers are slices; rename the file so that it ends with the number of its"
                " slice, or give --labels_csv"
            )


def _stem(name: str) -> str:
    """What `trailing_number` looks at, and what precedes it."""
    return name.rpartition(".")[0] if "." in name else name


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", _stem(name))


def _is_slice(number: str, slices: Mapping[str, int] | int) -> bool:
    return 0 <= int(number) <= slices if isinstance(slices, int) else number in slices
