"""Which label file belongs to which slice."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from vemseg_jax.data.convert.numbering import Count, check_rivals, count_from
from vemseg_jax.errors import InputError


def trailing_number(name: str) -> str | None:
    """The digits at the end of a file name's stem, as text; None where there are none.

    The stem is what precedes the extension, and of it only what follows its last dot:
    "a4.x_007.tif" gives "007", "a4.b.tif" None.
    """
    stem = name.rpartition(".")[0] if "." in name else name
    found = re.search(r"\d+$", stem.rpartition(".")[2])
    return found.group() if found else None


def slice_number(name: str) -> str | None:
    """The trailing number of a file as users name it: "slice_007.ome.tif" is slice 007 too."""
    return trailing_number(re.sub(r"\.ome(?=\.tiff?$)", "", name, flags=re.IGNORECASE))


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
    image_names: Sequence[str] | int, label_names: Sequence[str], *, folder: Path, first: int = 0
) -> dict[int, str]:
    """Pairs every label file with the one slice of its trailing number: `{z: label name}`.

    Args:
      image_names: a file name per slice, whose trailing numbers are compared as text; or the
        number of slices of a source without file names, whose slices are counted from `first`
        and compared as integers.
      label_names: file names.
      folder: of the labels, for messages.
      first: the number of the first slice, see `count_labels`.

    Raises:
      InputError: a label without a number or a slice, a label whose name holds the numbers of two
        slices, or two labels or two images with the same number.
    """
    slices = _slices_by_number(image_names, folder, first)
    counted = isinstance(image_names, int)
    numbers = label_numbers(label_names, folder=folder)
    check_rivals(
        label_names,
        image_names if isinstance(image_names, int) else slices,
        image_names=() if isinstance(image_names, int) else image_names,
        folder=folder,
    )
    pairs: dict[int, str] = {}
    for name, number in numbers.items():
        key = str(int(number)) if counted else number
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


def label_numbers(names: Sequence[str], *, folder: Path) -> dict[str, str]:
    """The trailing number of every label file, as text.

    Raises:
      InputError: a name without one.
    """
    found: dict[str, str] = {}
    for name in names:
        number = slice_number(name)
        if number is None:
            raise InputError(
                f"{folder / name}: no number at the end of its name; name it after its slice,"
                " like label_012.tif, or give --labels_csv"
            )
        found[name] = number
    return found


def count_labels(
    depth: int, label_names: Sequence[str], given: int | None, *, folder: Path
) -> Count:
    """How label files count the slices of a source without file names.

    Raises:
      InputError: a name without a number, or numbers that are no slices or fit counting from 0 and
        from 1.
    """
    numbers = label_numbers(label_names, folder=folder)
    check_rivals(label_names, depth, folder=folder)
    return count_from({int(n): name for name, n in numbers.items()}, depth, given, where=folder)


def _slices_by_number(image_names: Sequence[str] | int, folder: Path, first: int) -> dict[str, int]:
    if isinstance(image_names, int):
        return {str(z + first): z for z in range(image_names)}
    slices: dict[str, int] = {}
    for z, name in enumerate(image_names):
        number = slice_number(name)
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
        numbered = [int(key) for key in slices]
        return (
            f"its number {number} is no slice; slices are numbered from {min(numbered)} to"
            f" {max(numbered)}"
        )
    similar = [key for key in slices if int(key) == int(number)]
    if similar:
        return (
            f"no image has its number {number!r}; {image_names[slices[similar[0]]]} has"
            f" {similar[0]!r}, and numbers are compared digit by digit: rename one of them or"
            " give --labels_csv"
        )
    return f"no image has its number {number!r}; add the image, remove the label or rename it"


def describe_gaps(image_names: Sequence[str], slices: range | None = None) -> str | None:
    """Says which trailing numbers are missing or out of order; None where none are.

    Numbers that rise in even steps (0, 10, 20) have no gaps.

    Args:
      image_names: of all slices, which tell the step.
      slices: those that are looked at; all by default.
    """
    seen = range(len(image_names)) if slices is None else slices
    texts = [slice_number(name) for name in image_names]
    numbers = [int(text) for text in texts if text is not None]
    if len(numbers) < max(2, len(texts)):
        return None
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    inside = seen[:-1]
    wrong = next((z for z in inside if steps[z] <= 0), None)
    if wrong is not None:
        return (
            f"the numbers do not rise with the slices: {image_names[wrong]} is followed by"
            f" {image_names[wrong + 1]}"
        )
    step, gaps = min((s for s in steps if s > 0), default=1), []
    for z in inside:
        if steps[z] > step:
            first, last = numbers[z] + step, numbers[z + 1] - step
            gaps.append(f"{first}" if last <= first else f"{first}-{last}")
    if not gaps:
        return None
    more = f" and {len(gaps) - 20} more" if len(gaps) > 20 else ""
    return f"the numbers of the slices have gaps: {', '.join(gaps[:20])}{more} missing"
