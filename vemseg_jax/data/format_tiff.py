"""Slices of TIFF files: a folder of them, or one file with many pages."""

from pathlib import Path

from natsort import natsorted

from vemseg_jax.data import tiff, tiff_size
from vemseg_jax.data.axes import Axes, given_axes
from vemseg_jax.data.physical_size import Recorded
from vemseg_jax.data.slice_source import SliceSource, numbered, virtual_array
from vemseg_jax.data.value_range import make_value_range
from vemseg_jax.errors import InputError

TIFF_SUFFIXES = (".tif", ".tiff")
# LOW and HIGH of `--value_range`.
Range = tuple[float, float] | None


def list_tiffs(folder: Path) -> tuple[list[str], int]:
    """TIFF file names in natural order, and how many other entries there are.

    Hidden files, which some systems leave beside images, are not counted.

    Raises:
      InputError: no TIFF files.
    """
    visible = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    names = [
        name
        for name in visible
        if name.lower().endswith(TIFF_SUFFIXES) and not (folder / name).is_dir()
    ]
    if not names:
        found = f"{len(visible)} other files" if visible else "it is empty"
        raise InputError(f"{folder}: no TIFF files ({found}); files ending in .tif are needed")
    return natsorted(names), len(visible) - len(names)


def open_files(
    folder: Path,
    files: list[Path],
    *,
    names: list[str],
    label: bool,
    ignored: int = 0,
    value_range: Range = None,
) -> SliceSource:
    """A source of one TIFF file per slice, all headers checked.

    Raises:
      InputError: files of several pages, of different shape or type, or unusable ones.
    """
    first: tiff.TiffHeader | None = None
    recorded: list[Recorded] = []
    for file in files:
        header = tiff.read_header(file, label=label, ranged=value_range is not None)
        recorded.append(header.recorded)
        if header.shape[0] != 1:
            raise InputError(
                f"{file}: {header.shape[0]} pages; one slice per file is needed here, a stack is"
                " given by itself"
            )
        if first is None:
            first = header
        elif (header.shape, header.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{file}: {header.dtype} {header.shape[1:]}, but {files[0].name} is"
                f" {first.dtype} {first.shape[1:]}; all slices must have one shape and type"
            )
    assert first is not None
    shape = (len(files), *first.shape[1:])
    common = tiff_size.common(recorded)
    return SliceSource(
        path=folder,
        array=virtual_array(
            shape, first.dtype, lambda z: tiff.read_single(files[z]), lambda z: str(files[z])
        ),
        names=tuple(names),
        has_files=True,
        voxel_size=common.size,
        size_note=common.note,
        axes=None,
        axes_from="one file per slice, in natural order",
        ignored=ignored,
        value_range=None if label else make_value_range(folder, first.dtype, value_range),
    )


def open_folder(folder: Path, *, label: bool, value_range: Range) -> SliceSource:
    """A folder of TIFF files, in natural order.

    Raises:
      InputError: as `open_files`, or no TIFF files.
    """
    names, ignored = list_tiffs(folder)
    files = [folder / name for name in names]
    return open_files(
        folder, files, names=names, label=label, ignored=ignored, value_range=value_range
    )


def open_stack(path: Path, *, label: bool, axes: Axes, value_range: Range) -> SliceSource:
    """A TIFF file whose pages are slices.

    Raises:
      InputError: it cannot be used.
    """
    header = tiff.read_header(path, label=label, ranged=value_range is not None)
    return SliceSource(
        path=path,
        array=virtual_array(
            header.shape, header.dtype, tiff.TiffReader(path), lambda z: f"{path}, slice {z}"
        ),
        names=numbered(header.shape[0]),
        has_files=False,
        voxel_size=header.voxel_size,
        offset=header.offset,
        size_note=header.size_note,
        axes=header.axes,
        axes_from=_stack_axes(header.axes, axes, label=label),
        value_range=None if label else make_value_range(path, header.dtype, value_range),
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
