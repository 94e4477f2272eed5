"""An explicit pairing of slices and label files: a CSV file, as editors and Excel write them."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from vemseg_jax.data.convert.numbering import Count, count_from
from vemseg_jax.data.convert.pairing import slice_number
from vemseg_jax.data.formats.file_names import find_path, nfc
from vemseg_jax.errors import InputError

COLUMNS = ("structure", "image", "label")
_DELIMITERS = (",", ";", "\t")


class LabelFile(NamedTuple):
    """One line of a pairing: the label file of a slice, relative to the CSV or absolute."""

    z: int
    name: str


class CsvPairing(NamedTuple):
    """Label files of every structure in order of z, and how numbers in `image` were counted."""

    labels: dict[str, list[LabelFile]]
    counted: str | None


class _Row(NamedTuple):
    line: int
    structure: str
    image: str
    label: str


def read_pairing(
    path: Path, image_names: Sequence[str] | int, *, first_slice: int | None = None
) -> CsvPairing:
    """Reads an explicit pairing: CSV with the columns structure, image and label.

    `image` is the file name of a slice or its number, see `_by_number`; `label` a TIFF file,
    relative to the CSV. Commas, semicolons or tabs lie between columns; UTF-8, UTF-16 with a byte
    order mark, or the code page of Western Windows.

    Args:
      path: of the CSV.
      image_names: a file name per slice, or the number of slices of a source without file names.
      first_slice: the number of the first slice, where `image` holds numbers.

    Raises:
      InputError: a column or a value is missing, an image is unknown or its number ambiguous, or a
        slice has two labels of one structure.
    """
    path = find_path(path)
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: no labelled slice; add lines with structure, image and label")
    by_name: dict[str, list[int]] = {}
    for z, name in enumerate([] if isinstance(image_names, int) else image_names):
        by_name.setdefault(nfc(name), []).append(z)
    named = {row.line: z for row in rows if (z := _named(path, row, image_names, by_name)) >= 0}
    others = [row for row in rows if row.line not in named]
    for row in others:
        _check_number(path, row, image_names)
    numbers: dict[int, str] = {}
    for row in others:
        numbers.setdefault(int(row.image), f"line {row.line}")
    slices, count = _by_number(path, numbers, image_names, first_slice)
    pairs: dict[str, dict[int, str]] = {}
    for row in rows:
        z = named.get(row.line, -1)
        z = slices[int(row.image)] if z < 0 else z
        labels = pairs.setdefault(row.structure, {})
        if z in labels:
            raise InputError(
                f"{path}, line {row.line}: {row.structure} of image {row.image!r} is listed twice"
            )
        labels[z] = row.label
    _check_case(path, list(pairs))
    labels_of = {
        s: [LabelFile(z, labels[z]) for z in sorted(labels)] for s, labels in pairs.items()
    }
    return CsvPairing(labels_of, count)


def _named(
    path: Path, row: _Row, image_names: Sequence[str] | int, by_name: dict[str, list[int]]
) -> int:
    """The slice whose file `image` names, with or without its folder; -1 where it names none."""
    for name in (row.image, PureWindowsPath(row.image).name):
        found = by_name.get(nfc(name), [])
        exact = [z for z in found if not isinstance(image_names, int) and image_names[z] == name]
        if len(found) > 1 and len(exact) != 1:
            raise InputError(
                f"{path}, line {row.line}: {len(found)} images look like {row.image!r} and differ"
                " in how umlauts or accents are spelt; rename them"
            )
        if found:
            return (exact or found)[0]
    return -1


def _check_number(path: Path, row: _Row, image_names: Sequence[str] | int) -> None:
    if row.image.isascii() and row.image.isdecimal():
        return
    if isinstance(image_names, int):
        right = "the images are one file, so give the number of a slice"
    else:
        right = f"give a file name such as {image_names[0]} or the number of a slice"
    raise InputError(f"{path}, line {row.line}: no image {row.image!r}; {right}")


def _by_number(
    path: Path,
    numbers: dict[int, str],
    image_names: Sequence[str] | int,
    first_slice: int | None,
) -> tuple[dict[int, int], str | None]:
    """The slice of every number of the column image, and how it was found.

    A number may be that at the end of a file name, or count slices. Where the two say the same, or
    one is impossible, there is no doubt; file names that do not number all these slices leave
    counting from 0 or from 1.

    Raises:
      InputError: a number is no slice, or may be several.
    """
    if not numbers:
        return {}, None
    depth = image_names if isinstance(image_names, int) else len(image_names)
    own = {} if isinstance(image_names, int) else _own_numbers(image_names)
    if first_slice is None and set(numbers) <= set(own):
        by_file = {n: own[n] for n in numbers}
        doubtful = [n for n in numbers if own[n] != n]
        if doubtful and max(numbers) < depth:
            assert not isinstance(image_names, int)
            raise InputError(_either(path, doubtful[0], numbers, by_file, image_names))
        return by_file, "are those at the end of image names"
    count: Count = count_from(numbers, depth, first_slice, where=path)
    slices = {n: n - count.first for n in numbers}
    return slices, count.text


def _either(
    path: Path,
    number: int,
    numbers: dict[int, str],
    by_file: dict[int, int],
    image_names: Sequence[str],
) -> str:
    own, counted = image_names[by_file[number]], image_names[number]
    from_one = " or --first_slice=1 if" if by_file[number] == number - 1 else "; if"
    return (
        f"{path}, {numbers[number]}: image {number} may be {own}, which ends with it, or {counted},"
        f" slice {number} counted from 0; give --first_slice=0 if it is {counted}{from_one} it is"
        f" {own}{'' if from_one.startswith(' or') else ', write file names in the column image'}"
    )


def _own_numbers(image_names: Sequence[str]) -> dict[int, int]:
    """`{number at the end of its name: slice}`, of numbers that one image alone has."""
    found: dict[int, list[int]] = {}
    for z, name in enumerate(image_names):
        number = slice_number(name)
        if number is not None:
            found.setdefault(int(number), []).append(z)
    return {number: zs[0] for number, zs in found.items() if len(zs) == 1}


def _check_case(path: Path, structures: list[str]) -> None:
    by_case: dict[str, str] = {}
    for name in structures:
        other = by_case.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"{path}: structures {other!r} and {name!r} differ in upper and lower case only;"
                " write one of them throughout"
            )


def _rows(path: Path) -> list[_Row]:
    """The lines that are not blank.

    Raises:
      InputError: it is no table with these columns, or a line is incomplete.
    """
    text = _text(path)
    first = text.lstrip().split("\n", 1)[0].split("\r", 1)[0].strip()
    if first.lower().startswith("sep=") and len(first) == len("sep=") + 1:  # for Excel only
        text = text.replace(first, "", 1)
    columns, lines = _table(path, text)
    lost = [name for name in COLUMNS if columns.count(name) != 1]
    if lost:
        raise InputError(
            f"{path}: columns {', '.join(columns) or 'none'}; the first line must name"
            f" {', '.join(COLUMNS)}, each once, with commas, semicolons or tabs between"
        )
    rows = []
    for line, fields in lines:
        if not any(fields):
            continue
        if any(fields[len(columns) :]):
            raise InputError(
                f"{path}, line {line}: {len(fields)} fields for {len(columns)} columns; put names"
                ' that hold the separator into quotes, "a,b.tif"'
            )
        row = dict(zip(columns, fields, strict=False))
        values = [row.get(column, "") for column in COLUMNS]
        if not all(values):
            raise InputError(f"{path}, line {line}: needs structure, image and label")
        rows.append(_Row(line, *values))
    return rows


def _table(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, lower case, and numbered lines, with the separator that finds most columns."""
    best: tuple[list[str], list[tuple[int, list[str]]]] = ([], [])
    known = -1
    for delimiter in _DELIMITERS:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t"
        )
        try:
            lines = [(reader.line_num, [f.strip() for f in fields]) for fields in reader]
        except csv.Error as error:
            raise InputError(f"{path}: not a readable CSV file ({error})") from error
        head = next((i for i, (_, fields) in enumerate(lines) if any(fields)), len(lines))
        columns = [name.casefold() for name in lines[head][1]] if head < len(lines) else []
        found = len(set(columns) & set(COLUMNS))
        if found > known:
            best, known = (columns, lines[head + 1 :]), found
    return best


def _text(path: Path) -> str:
    """The text of a file, in the encoding that its first bytes tell.

    What is not UTF-8 is read as Western Windows writes it: where that is wrong, names will not be
    found, and nothing is paired.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path}: not a readable CSV file; save it as CSV UTF-8")
