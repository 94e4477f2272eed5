"""Parts of HDF5 datasets that are not stored: HDF5 reads them as the fill value without a word.

Chunks that were never written, files of raw values that are missing or short, and sources of
virtual datasets that are missing, smaller than they were, or never named.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from vemseg_jax.data.formats.axes import SPATIAL
from vemseg_jax.data.formats.hdf5.failures import why
from vemseg_jax.data.formats.holes import Chunks, Holes, Region, Triple, in_slices, judge

_LISTED = 5
_ORIGIN = "${ORIGIN}"


def find_holes(
    file: Path, dataset: h5py.Dataset, axes: str, shape: Triple, *, label: bool
) -> Holes | None:
    """What is not stored of a dataset.

    Args:
      file: in which it lies.
      dataset: as it is read.
      axes: one letter a dimension.
      shape: zyx, of the part that is read.
      label: see `judge`.

    Returns:
      None where all is there.
    """
    if dataset.is_virtual:
        return _virtual(file, dataset, axes, label=label)
    if dataset.external:
        return _external(file, dataset)
    if dataset.chunks is None:
        compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
        if compact or dataset.id.get_offset() is not None:
            return None
        return Holes("no value was ever written to it; all of it would be empty", lost=True)
    stored, size = _stored(dataset, axes, shape)

    def read(region: Region) -> np.ndarray:
        by_axis = dict(zip(SPATIAL, region, strict=True))
        index = tuple(by_axis.get(a, slice(0, 1)) for a in axes)
        order = [axes.index(a) for a in SPATIAL]
        rest = [i for i in range(len(axes)) if i not in order]
        values = dataset[index].transpose(order + rest)
        return values.reshape(values.shape[:3])

    chunks = Chunks(
        stored=stored,
        size=size,
        shape=shape,
        fill=float(dataset.fillvalue),
        read=read,
        name=lambda place: f"chunk {place}",
    )
    return judge(chunks, label=label)


def _stored(dataset: h5py.Dataset, axes: str, shape: Triple) -> tuple[np.ndarray, Triple]:
    """Which chunks of the part that is read are stored, `[z, y, x]`, and their size."""
    order = [axes.index(a) for a in SPATIAL]
    z, y, x = (int(dataset.chunks[i]) for i in order)
    grid = [-(-n // size) for n, size in zip(shape, (z, y, x), strict=True)]
    stored = np.zeros(grid, bool)

    def mark(info: h5py.h5d.StoreInfo) -> None:
        place = tuple(int(info.chunk_offset[i]) // int(dataset.chunks[i]) for i in order)
        if all(i < n for i, n in zip(place, grid, strict=True)):
            stored[place] = True

    dataset.id.chunk_iter(mark)
    return stored, (z, y, x)


def open_dataset(file: Path, handle: h5py.File, name: str) -> h5py.Dataset:
    """A dataset, whose files of raw values are looked for beside `file` as well.

    By itself HDF5 looks in the folder in which a program was started.
    """
    dataset = handle[name]
    names = [_text(name) for name, _, _ in dataset.external or ()]
    beside = names and all((file.parent / name).is_file() for name in names)
    if not beside or all(Path(name).is_file() for name in names):
        return dataset
    # One that is open keeps the places where it looks.
    del dataset
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(_ORIGIN.encode())
    return h5py.Dataset(h5py.h5d.open(handle.id, name.encode(), access))


def _external(file: Path, dataset: h5py.Dataset) -> Holes | None:
    left = int(dataset.size) * dataset.dtype.itemsize
    lost: list[str] = []
    for name, offset, size in dataset.external:
        share = min(int(size), left)
        left -= share
        found = next((p for p in _places(file, _text(name)) if p.is_file()), None)
        if found is None:
            lost.append(f"{_text(name)} is missing")
        elif found.stat().st_size < int(offset) + share:
            lost.append(f"{found} has {found.stat().st_size} of {int(offset) + share} bytes")
    if left:
        lost.append(f"no file is named for the last {left} bytes")
    if not lost:
        return None
    return Holes(f"its values lie in other files: {_some(lost)}", lost=True, remedy=_put_back(file))


class _Lost(NamedTuple):
    """A source of a virtual dataset, what is wrong with it, and the slices it is of."""

    text: str
    slices: range
    certain: bool = True


def _virtual(file: Path, dataset: h5py.Dataset, axes: str, *, label: bool) -> Holes | None:
    z = axes.index("z")
    lost: list[_Lost] = []
    covered = np.zeros(dataset.shape[z], np.int64)
    points, bounded = 0, True
    opened: dict[str, Holes | str | None] = {}
    for source in dataset.virtual_sources():
        if "%b" in source.file_name or "%b" in source.dset_name:
            bounded = False
            lost += _missing_blocks(file, dataset, source, z)
            continue
        start, end = source.vspace.get_select_bounds()
        count = int(source.vspace.get_select_npoints())
        points += count
        slices = range(int(start[z]), int(end[z]) + 1)
        covered[slices.start : slices.stop] += count // len(slices)
        wrong = _wrong_with(file, source, count, opened)
        if wrong is not None:
            lost.append(_Lost(wrong[0], slices, wrong[1]))
    if bounded and points < dataset.size:
        bare = np.flatnonzero(covered < int(dataset.size) // dataset.shape[z])
        text = f"{100 * (1 - points / dataset.size):.3g} % of its voxels come from no file"
        lost.append(_Lost(text + _in_slices([int(i) for i in bare]), range(0), certain=False))
    if not lost:
        return None
    where = sorted({i for each in lost for i in each.slices})
    # Parts that nobody named are empty in labels, as chunks that nobody wrote.
    certain = any(each.certain for each in lost)
    return Holes(
        f"is a virtual dataset: {_some([each.text for each in lost])}{_in_slices(where)}",
        lost=certain or not (label and not np.any(dataset.fillvalue)),
        remedy=_put_back(file) if certain else "make it again with all of its files",
    )


def _wrong_with(
    file: Path, source: h5py._hl.vds.VDSmap, count: int, opened: dict[str, Holes | str | None]
) -> tuple[str, bool] | None:
    """What is wrong with a source, and whether values were lost for certain."""
    name, inner = source.file_name, source.dset_name
    found = file if name == "." else next((p for p in _places(file, name) if p.is_file()), None)
    if found is None:
        return f"{name} is missing", True
    try:
        with h5py.File(found, "r") as handle:
            dataset = handle.get(inner)
            if not isinstance(dataset, h5py.Dataset):
                return f"{found} has no dataset {inner}", True
            if _is_smaller(dataset, source.src_space, count):
                return f"{found}/{inner.lstrip('/')} is smaller ({dataset.shape})", True
            key = f"{found}//{inner}"
            if key not in opened:
                opened[key] = None
                opened[key] = _holes_of_source(found, dataset)
            holes = opened[key]
    except OSError as error:
        return f"{found} cannot be read: {why(error)}", True
    if isinstance(holes, Holes):
        return f"{found}/{inner.lstrip('/')}: {holes.text}", holes.lost
    return None


def _holes_of_source(file: Path, dataset: h5py.Dataset) -> Holes | None:
    """Of a dataset of any number of dimensions."""
    if dataset.is_virtual:
        return _virtual(file, dataset, "z" + "?" * (dataset.ndim - 1), label=False)
    if dataset.external:
        return _external(file, dataset)
    if dataset.chunks is None:
        return None
    wanted = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]))
    there = int(dataset.id.get_num_chunks())
    if there >= wanted:
        return None
    return Holes(f"{wanted - there} of its {wanted} chunks were never written", lost=False)


def _is_smaller(dataset: h5py.Dataset, space: h5py.h5s.SpaceID, count: int) -> bool:
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return int(dataset.size) < count
    _, end = space.get_select_bounds()
    return len(end) != dataset.ndim or any(e >= n for e, n in zip(end, dataset.shape, strict=True))


def _missing_blocks(
    file: Path, dataset: h5py.Dataset, source: h5py._hl.vds.VDSmap, z: int
) -> Iterator[_Lost]:
    """Blocks of files numbered in their names; HDF5 ends the dataset before the first gap."""
    start, stride, _, _ = source.vspace.get_regular_hyperslab()
    counts = source.vspace.get_regular_hyperslab()[2]
    axis = next((i for i, n in enumerate(counts) if n == h5py.h5s.UNLIMITED), z)
    used = -(-(dataset.shape[axis] - int(start[axis])) // int(stride[axis]))
    there = sorted(_numbers(file, source))
    missing = [n for n in range(max(there, default=-1) + 1) if n not in there]
    if not there or missing or used < len(there):
        first = missing[0] if missing else used
        name = (source.file_name if "%b" in source.file_name else source.dset_name).replace(
            "%b", str(first)
        )
        yield _Lost(
            f"{name} is missing ({len(missing) or 1} of the numbered parts"
            f" {source.file_name}:{source.dset_name}); HDF5 ends the dataset there, after"
            f" {dataset.shape[z]} slices",
            range(0),
        )


def _numbers(file: Path, source: h5py._hl.vds.VDSmap) -> set[int]:
    """Those of the numbered files, or datasets of one file, that are there."""
    if "%b" in source.file_name:
        folder, _, name = source.file_name.rpartition("/")
        pattern = re.compile(re.escape(name).replace("%b", r"(\d+)"))
        places = [p for p in _places(file, folder or ".") if p.is_dir()]
        names: Sequence[str] = [each.name for p in places for each in p.iterdir()]
    else:
        pattern = re.compile(re.escape(source.dset_name.lstrip("/")).replace("%b", r"(\d+)"))
        found = file if source.file_name == "." else next(_places(file, source.file_name))
        names = []
        if found.is_file():
            with h5py.File(found, "r") as handle:
                handle.visit(names.append)
    return {int(match.group(1)) for match in map(pattern.fullmatch, names) if match}


def _places(file: Path, name: str) -> Iterator[Path]:
    """Where HDF5 may look for another file: beside the first, where the program was started."""
    path = Path(name)
    yield file.parent / path
    yield path
    yield file.parent / path.name
    for variable in ("HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX"):
        prefix = os.environ.get(variable)
        if prefix:
            yield Path(prefix.replace(_ORIGIN, str(file.parent))) / path


def _text(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def _some(texts: list[str]) -> str:
    """The first of many, each once."""
    texts = list(dict.fromkeys(texts))
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return "; ".join(texts[:_LISTED]) + more


def _in_slices(slices: list[int]) -> str:
    return f" ({in_slices(slices)})" if slices else ""


def _put_back(file: Path) -> str:
    return f"put the files back where {file.name} looks for them, or copy it again with them"
