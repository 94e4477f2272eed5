"""Which label file belongs to which slice."""

import csv
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vemseg_jax.errors import InputError

CSV_COLUMNS = ("structure", "image", "label")


def trailing_number(name: str) -> str | None:
    """The digits at the end of a file name's stem, as text; None where there are none.

    The stem is what precedes the extension, and of it only what follows its last dot:
    "a4.x_007.tif" gives "007", "a4.b.tif" None.
    """
    stem = name.rpartition(".")[0] if "." in name else name
    found = re.search(r"\d+$", stem.rpartition(".")[2])
    return found.group() if found else None


def match_by_trailing_number(
    image_names: Sequence[str], target_names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Splits images into `(labeled, unlabeled)`, in the order given.

    An image is labelled when some target has the same trailing number, compared as text: "012"
    is not "12". Names without a number match nothing. The rule of the reference (Pagano et al.
    2023), which then pairs by position; the converter pairs with `pair_by_number`.
    """
    numbers = {trailing_number(name) for name in target_names} - {None}
    labeled = [name for name in image_names if trailing_number(name) in numbers]
    unlabeled = [name for name in image_names if trailing_number(name) not in numbers]
    return labeled, unlabeled


def pair_by_number(
    image_names: Sequence[str] | int, label_names: Sequence[str], *, folder: Path
) -> dict[int, str]:
    """Pairs every label file with the one slice of its trailing number: `{z: label name}`.

    Args:
      image_names: a file name per slice, whose trailing numbers are compared as text; or the
        number of slices of a source without file names, whose slice z, counted from 0, has
        the number z, compared as an integer.
      label_names: file names.
      folder: of the labels, for messages.

    Raises:
      InputError: a label without a number or a slice, or two labels or two images with the
        same number.
    """
    slices = _slices_by_number(image_names, folder)
    pairs: dict[int, str] = {}
    for name in label_names:
        number = trailing_number(name)
        if number is None:
            raise InputError(
                f"{folder / name}: no number at the end of its name; name it after its slice,"
                " like label_012.tif, or give --labels_csv"
            )
        key = str(int(number)) if isinstance(image_names, int) else number
        if key not in slices:
            raise InputError(f"{folder / name}: {_no_slice(number, image_names, slices)}")
        z = slices[key]
        if z in pairs:
            raise InputError(
                f"{folder / name}: {pairs[z]} has the number {number} too; keep one label per"
                " slice or give --labels_csv"
            )
        pairs[z] = name
    return dict(sorted(pairs.items()))


def _slices_by_number(image_names: Sequence[str] | int, folder: Path) -> dict[str, int]:
    if isinstance(image_names, int):
        return {str(z): z for z in range(image_names)}
    slices: dict[str, int] = {}
    for z, name in enumerate(image_names):
        number = trailing_number(name)
        if number in slices:
            raise InputError(
                f"{name}: {image_names[slices[number]]} has the number {number} too, so labels in"
                f" {folder} cannot be paired; rename the images or give --labels_csv"
            )
        if number is not None:
            slices[number] = z
    if not slices:
        raise InputError(
            f"{folder}: labels pair by the number at the end of file names, and no image has one"
            f" ({image_names[0]}); rename the images or give --labels_csv"
        )
    return slices


def _no_slice(number: str, image_names: Sequence[str] | int, slices: dict[str, int]) -> str:
    if isinstance(image_names, int):
        return f"its number {number} is no slice; slices are numbered from 0 to {image_names - 1}"
    similar = [key for key in slices if int(key) == int(number)]
    if similar:
        return (
            f"no image has its number {number!r}; {image_names[slices[similar[0]]]} has"
            f" {similar[0]!r}, and numbers are compared digit by digit: rename one of them or"
            " give --labels_csv"
        )
    return f"no image has its number {number!r}; add the image, remove the label or rename it"


def describe_gaps(image_names: Sequence[str]) -> str | None:
    """Says which trailing numbers are missing or out of order; None where none are.

    Numbers that rise in even steps (0, 10, 20) have no gaps.
    """
    texts = [trailing_number(name) for name in image_names]
    numbers = [int(text) for text in texts if text is not None]
    if len(numbers) < max(2, len(texts)):
        return None
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if min(steps) <= 0:
        z = next(i for i, step in enumerate(steps) if step <= 0)
        return (
            f"the numbers do not rise with the slices: {image_names[z]} is followed by"
            f" {image_names[z + 1]}"
        )
    step, gaps = min(steps), []
    for a, b in itertools.pairwise(numbers):
        if b - a > step:
            first, last = a + step, b - step
            gaps.append(f"{first}" if last <= first else f"{first}-{last}")
    if not gaps:
        return None
    more = f" and {len(gaps) - 20} more" if len(gaps) > 20 else ""
    return f"the numbers of the slices have gaps: {', '.join(gaps[:20])}{more} missing"


class LabelFile(NamedTuple):
    """One line of a pairing: the label file of a slice, relative to the CSV or absolute."""

    z: int
    name: str


def read_pairing(path: Path, image_names: Sequence[str]) -> dict[str, list[LabelFile]]:
    """Reads an explicit pairing: CSV with the columns structure, image and label.

    `image` is the file name of a slice or its z, counted from 0; `label` a TIFF file, relative
    to the CSV.

    Returns:
      The label files of every structure, in order of z.

    Raises:
      InputError: a column or a value is missing, an image is unknown, or a slice has two labels
        of one structure.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [str(name).strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
    if not set(CSV_COLUMNS) <= set(columns):
        raise InputError(
            f"{path}: columns {', '.join(columns) or 'none'}; the first line must name"
            f" {', '.join(CSV_COLUMNS)}"
        )
    by_name = {name: z for z, name in enumerate(image_names)}
    pairs: dict[str, dict[int, str]] = {}
    for line, row in enumerate(rows, start=2):
        structure, image, label = ((row[column] or "").strip() for column in CSV_COLUMNS)
        if not (structure and image and label):
            raise InputError(f"{path}, line {line}: needs structure, image and label")
        z = by_name.get(image, int(image) if image.isdecimal() else -1)
        if not 0 <= z < len(image_names):
            raise InputError(
                f"{path}, line {line}: no image {image!r}; give a file name such as"
                f" {image_names[0]} or a slice from 0 to {len(image_names) - 1}"
            )
        labels = pairs.setdefault(structure, {})
        if z in labels:
            raise InputError(f"{path}, line {line}: {structure} of image {image!r} is listed twice")
        labels[z] = label
    if not pairs:
        raise InputError(f"{path}: no labelled slice; add lines with structure, image and label")
    return {
        structure: [LabelFile(z, labels[z]) for z in sorted(labels)]
        for structure, labels in pairs.items()
    }
