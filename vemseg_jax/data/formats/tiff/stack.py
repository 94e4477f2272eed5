"""Slices of TIFF or PNG files: a folder of them, or one TIFF file with many pages."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from natsort import natsorted

from vemseg_jax.data.formats.axes import Axes, given_axes
from vemseg_jax.data.formats.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.formats.tiff import header as tiff
from vemseg_jax.data.formats.tiff import ome as tiff_ome
from vemseg_jax.data.formats.tiff import size as tiff_size
from vemseg_jax.data.formats.tiff.slice_files import (
    PNG_SUFFIXES,
    TIFF_SUFFIXES,
    SliceReader,
    read_header,
)
from vemseg_jax.data.formats.tiff.slices import SPLIT
from vemseg_jax.data.formats.unknown import describe_folder
from vemseg_jax.data.formats.value_range import make_value_range
from vemseg_jax.errors import InputError

# LOW and HIGH of `--value_range`.
Range = tuple[float, float] | None
_PRINTED_NOTES = 3


def list_slices(folder: Path) -> tuple[list[str], int]:
    """Names of TIFF or PNG files in natural order, and how many other entries there are.

    Hidden files, which some systems leave beside images, are not counted.

    Raises:
      InputError: no such files, or files of both kinds.
    """
    visible = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    files = [name for name in visible if not (folder / name).is_dir()]
    tiffs = [name for name in files if name.lower().endswith(TIFF_SUFFIXES)]
    pngs = [name for name in files if name.lower().endswith(PNG_SUFFIXES)]
    if tiffs and pngs:
        raise InputError(
            f"{folder}: {len(tiffs)} TIFF files ({tiffs[0]}) and {len(pngs)} PNG files ({pngs[0]});"
            " keep one kind in the folder"
        )
    names = tiffs or pngs
    if not names:
        raise InputError(
            f"{folder}: no TIFF files ({describe_folder(visible)}); files ending in .tif or .png"
            " are needed"
        )
    return natsorted(names), len(visible) - len(names)


def open_files(
    folder: Path,
    files: list[Path],
    *,
    names: list[str],
    label: bool,
    ignored: int = 0,
    value_range: Range = None,
    in_order: bool = True,
) -> SliceSource:
    """A source of one TIFF or PNG file per slice, all headers checked.

    The files are in the order of the slices; unless `in_order`, the set that they say they are may
    tell of another.

    Raises:
      InputError: files of several pages, of different shape or type, or unusable ones.
    """
    headers: list[tiff.TiffHeader] = []
    for file in files:
        header = read_header(file, label=label, ranged=value_range is not None, alone=True)
        if header.shape[0] != 1:
            raise InputError(
                f"{file}: {header.shape[0]} pages; one slice per file is needed here, a stack is"
                " given by itself"
            )
        headers.append(header)
        first = headers[0]
        if (header.shape, header.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{file}: {header.dtype} {header.shape[1:]}, but {files[0].name} is"
                f" {first.dtype} {first.shape[1:]}; all slices must have one shape and type"
            )
    axes_from, notes = "one file per slice, in natural order", list[str]()
    listed = None if in_order else _listed(files, headers)
    if listed is not None:
        axes_from = "one file per slice, in the order of their OME-XML"
        uuids = [tiff_ome.own_uuid(header.xml) for header in headers]
        order, notes = tiff_ome.order_of(folder, names, uuids, listed)
        headers, names = [headers[n] for n in order], [names[n] for n in order]
    return _source(
        folder,
        headers,
        names=names,
        label=label,
        axes=None,
        axes_from=axes_from,
        notes=notes + _notes(headers, names, label=label),
        ignored=ignored,
        value_range=value_range,
    )


def _listed(files: list[Path], headers: list[tiff.TiffHeader]) -> tiff_ome.OmeSet | None:
    """The set of several files that one of them tells of first."""
    for file, header in zip(files, headers, strict=True):
        listed = tiff_ome.set_of(file, header.xml)
        if listed is not None and len(listed.files) > 1:
            return listed
    return None


def _source(
    path: Path,
    headers: list[tiff.TiffHeader],
    *,
    names: list[str] | None,
    label: bool,
    axes: str | None,
    axes_from: str | None,
    notes: list[str],
    value_range: Range,
    ignored: int = 0,
) -> SliceSource:
    places = [place for header in headers for place in header.places]
    first = headers[0]
    recorded = first.recorded
    if names is not None:
        recorded = tiff_size.common([header.recorded for header in headers])
    shape, dtype = (len(places), *first.shape[1:]), first.dtype

    def where(z: int) -> str:
        return f"{path}, slice {z}" if names is None else str(places[z].file)

    return SliceSource(
        path=path,
        array=virtual_array(shape, dtype, SliceReader(places, label=label), where),
        names=numbered(len(places)) if names is None else tuple(names),
        has_files=names is not None,
        voxel_size=recorded.size,
        offset=recorded.offset,
        size_note=recorded.note,
        axes=axes,
        axes_from=axes_from,
        ignored=ignored,
        value_range=None if label else make_value_range(path, dtype, value_range),
        notes=tuple(notes),
    )


def _notes(headers: list[tiff.TiffHeader], names: list[str], *, label: bool) -> list[str]:
    """What to say of all files: each thing once, with how many it is true of."""
    counts = Counter(note for header in headers for note in header.notes)
    notes = []
    split = counts.pop(SPLIT, 0)
    if split:
        notes.append(
            f"the descriptions of {split} of {len(names)} files are those of a whole stack; each"
            " file is the one slice that is in it"
        )
    notes += list(counts)[:_PRINTED_NOTES]
    if len(counts) > _PRINTED_NOTES:
        notes.append(f"the same holds for {len(counts) - _PRINTED_NOTES} more files")
    return notes + inverted_notes(headers, label=label)


def inverted_notes(headers: list[tiff.TiffHeader], *, label: bool) -> list[str]:
    """What is to be said of slices whose white is stored as 0."""
    turned = sum(header.inverted.turned for header in headers)
    kept = sum(header.inverted.kept for header in headers)
    total = sum(header.shape[0] for header in headers)
    what, notes = "labels" if label else "slices", []
    if turned:
        notes.append(
            f"{turned} of {total} {what} store white as 0 (photometric MinIsWhite) and are"
            " inverted, as viewers show them"
            + (
                "; what is shown white is the structure (masks that Python wrote from a bool array"
                " are shown inverted: write them as uint8)"
                if label
                else ""
            )
        )
    if kept:
        notes.append(
            f"{kept} of {total} labels are shown inverted (ImageJ's inverting lookup table); their"
            " values count as they are stored: 0 is background although it is shown white"
        )
    return notes


def open_folder(folder: Path, *, label: bool, value_range: Range) -> SliceSource:
    """A folder of TIFF or PNG files, in natural order, or in that of the set that they are.

    Raises:
      InputError: as `open_files`, or no files of slices.
    """
    names, ignored = list_slices(folder)
    files = [folder / name for name in names]
    first = read_header(files[0], label=label, ranged=value_range is not None, alone=True)
    listed = tiff_ome.set_of(files[0], first.xml)
    if first.shape[0] > 1 and listed is not None and len(listed.files) > 1:
        return _open_set(folder, files[0], listed, names, label=label, value_range=value_range)
    return open_files(
        folder,
        files,
        names=names,
        label=label,
        ignored=ignored,
        value_range=value_range,
        in_order=False,
    )


def _open_set(
    folder: Path,
    first: Path,
    listed: tiff_ome.OmeSet,
    names: list[str],
    *,
    label: bool,
    value_range: Range,
) -> SliceSource:
    """A folder that holds one set of files with several slices each, and nothing else."""
    others = natsorted(set(names) - set(listed.files))
    if others:
        raise InputError(
            f"{folder}: {first.name} and {len(listed.files) - 1} others are one stack, but"
            f" {others[0]} is no part of it; give {first} by itself, or move what does not belong"
            " to the stack"
        )
    source = open_stack(first, label=label, axes=None, value_range=value_range)
    return replace(source, path=folder)


def open_stack(path: Path, *, label: bool, axes: Axes, value_range: Range) -> SliceSource:
    """A TIFF file whose pages are slices, or the set of files that it belongs to.

    Raises:
      InputError: it cannot be used.
    """
    text, _, _, only_missing = given_axes(axes)
    header = read_header(
        path,
        label=label,
        ranged=value_range is not None,
        confirmed=text == "zyx" and not only_missing,
    )
    return _source(
        path,
        [header],
        names=None,
        label=label,
        axes=header.axes,
        axes_from=_stack_axes(header.axes, axes, label=label),
        notes=[*header.notes, *inverted_notes([header], label=label)],
        value_range=value_range,
    )


def _stack_axes(recorded: str | None, given: Axes, *, label: bool) -> str | None:
    text, flag, _, only_missing = given_axes(given)
    if text not in (None, "zyx") and not only_missing:
        raise InputError(
            f"--{flag}={text}: only zyx can be read from a TIFF stack; reorder the file's axes to"
            " zyx"
        )
    if recorded is not None and recorded.endswith("zyx"):
        return f"recorded as {recorded}"
    if text == "zyx" and not only_missing:
        return f"--{flag}, recorded as {recorded or 'nothing'}"
    if recorded is None:
        return "assumed, pages are slices; the file records none"
    return f"taken as slices, recorded as {recorded}" if label else None
