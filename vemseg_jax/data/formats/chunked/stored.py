"""Which chunks of an array of tensorstore are stored, from a list of its files."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from vemseg_jax.data.formats.axes import SPATIAL
from vemseg_jax.data.formats.holes import LOCAL_SIDES, REMOTE_SIDES, Chunks, Holes, Triple, judge
from vemseg_jax.data.formats.stores import Store

# Beyond it, a list from afar costs more than it tells.
_SECONDS = 120.0
# Ends of files that CloudVolume writes, whose chunks are compressed once more.
_COMPRESSED = (".gz", ".br")


class _Naming(NamedTuple):
    """How files of chunks are called.

    `folder` is the part of the name that all share, `name` a place in the grid to a name,
    `parse` the other way around, None where it is no name of a chunk.
    """

    folder: str
    name: Callable[[tuple[int, ...]], str]
    parse: Callable[[str], tuple[int, ...] | None]


def find_holes(
    store: Store, array: ts.TensorStore, view: ts.TensorStore, axes: str, *, label: bool
) -> Holes | ts.TensorStore | None:
    """What is not stored of an array.

    Args:
      store: where it lies.
      array: as stored.
      view: of it, `[z, y, x]`.
      axes: one letter a dimension of `array`.
      label: see `judge`.

    Returns:
      None where all is there, or a view of the array that fails at missing chunks, to be
      arranged as `view` is, where files cannot be listed.
    """
    fill = np.asarray(0 if array.fill_value is None else array.fill_value).ravel()
    value = float(fill[0]) if fill.size else 0.0
    known = _stored(store, array)
    if known is None:
        # Labels without their empty chunks are too common to refuse any that is missing.
        return None if label and value == 0 else store.open_strictly(array)
    if isinstance(known, Holes):
        return known
    stored, size, naming = known
    order = [axes.index(a) for a in SPATIAL]
    rest = [i for i in range(len(axes)) if i not in order]
    grid = stored.transpose(order + rest).reshape([stored.shape[i] for i in order])

    def name(place: Triple) -> str:
        index = [0] * len(axes)
        for axis, i in zip(order, place, strict=True):
            index[axis] = i
        return naming(tuple(index))

    z, y, x = (size[i] for i in order)
    chunks = Chunks(
        stored=grid,
        size=(z, y, x),
        shape=(int(view.shape[0]), int(view.shape[1]), int(view.shape[2])),
        fill=value,
        read=lambda region: np.asarray(view[region].read().result()),
        name=name,
        sides=LOCAL_SIDES if isinstance(store.path, Path) else REMOTE_SIDES,
    )
    return judge(chunks, label=label)


_Stored = tuple[np.ndarray, tuple[int, ...], Callable[[tuple[int, ...]], str]]


def _stored(store: Store, array: ts.TensorStore) -> _Stored | Holes | None:
    """Which chunks are stored, `[dimensions of the array]`, their size, and their names.

    Returns:
      None where that cannot be told.
    """
    spec = array.spec().to_json()
    naming = _naming(spec, array)
    files = layout_size(array.chunk_layout.write_chunk.shape, array)
    origin = [int(i) for i in array.domain.inclusive_min]
    if (
        array.kvstore is None
        or naming is None
        or list(array.chunk_layout.grid_origin or origin) != origin
    ):
        return None
    names = store.list(array.kvstore, naming.folder, timeout=_SECONDS)
    if names is None:
        return None
    grid = tuple(-(-int(n) // size) for n, size in zip(array.shape, files, strict=True))
    stored = np.zeros(grid, bool)
    for place in map(naming.parse, names):
        if place is not None and all(0 <= i < n for i, n in zip(place, grid, strict=True)):
            stored[place] = True
    if not stored.any():
        other = _other_names(names)
        if other is not None:
            example = naming.name((0,) * array.rank)
            return Holes(
                f"none of its {stored.size} chunks is stored under a name such as {example}, which"
                f" its metadata call for; there are files such as {other}",
                lost=True,
                remedy=_rename(other, spec),
            )
    inner = layout_size(array.chunk_layout.read_chunk.shape, array)
    if inner == files:
        return stored, files, lambda place: f"file {naming.name(place)}"
    return _inside_shards(array, stored, files, inner), inner, lambda place: f"chunk {place}"


def layout_size(shape: Any, array: ts.TensorStore) -> tuple[int, ...]:
    """The extents of a chunk, where 0 or None stand for the whole."""
    return tuple(int(a) or int(n) for a, n in zip(shape, array.shape, strict=True))


def _inside_shards(
    array: ts.TensorStore, stored: np.ndarray, files: tuple[int, ...], inner: tuple[int, ...]
) -> np.ndarray:
    """The same of the chunks within files of several; their indexes are read, no voxels."""
    grid = tuple(-(-int(n) // size) for n, size in zip(array.shape, inner, strict=True))
    found = np.zeros(grid, bool)
    zero = array[ts.d[:].translate_to[0]]

    def region(place: Iterable[int], size: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(
            slice(i * n, min((i + 1) * n, int(end)))
            for i, n, end in zip(place, size, array.shape, strict=True)
        )

    shards = [tuple(int(i) for i in place) for place in np.argwhere(stored)]
    whole = [_ask(zero[region(place, files)]) for place in shards]
    for place, answer in zip(shards, whole, strict=True):
        voxels = region(place, files)
        box = tuple(
            slice(r.start // n, -(-r.stop // n)) for r, n in zip(voxels, inner, strict=True)
        )
        if answer.result().fully_stored:
            found[box] = True
            continue
        places = [
            tuple(int(i) + b.start for i, b in zip(step, box, strict=True))
            for step in np.ndindex(*(b.stop - b.start for b in box))
        ]
        for each, one in [(p, _ask(zero[region(p, inner)])) for p in places]:
            found[each] = bool(one.result().fully_stored)
    return found


def _ask(part: ts.TensorStore) -> Any:
    return part.storage_statistics(query_fully_stored=True)


def _naming(spec: dict[str, Any], array: ts.TensorStore) -> _Naming | None:
    """How the driver of an array calls its files; None where chunks have none of their own."""
    metadata, rank = spec.get("metadata", {}), array.rank
    if spec["driver"] == "zarr":
        return _joined("", metadata.get("dimension_separator") or ".", rank)
    if spec["driver"] == "n5":
        return _joined("", "/", rank)
    if spec["driver"] == "zarr3":
        encoding = metadata["chunk_key_encoding"]
        default = encoding["name"] == "default"
        separator = encoding.get("configuration", {}).get("separator") or ("/" if default else ".")
        return _joined(f"c{separator}" if default else "", separator, rank)
    scale = spec["scale_metadata"]
    if scale.get("sharding") or ".." in scale["key"].split("/"):
        return None
    return _ranges(scale, layout_size(array.chunk_layout.write_chunk.shape, array))


def _joined(prefix: str, separator: str, rank: int) -> _Naming:
    """Places in the grid, one after the other."""
    pattern = re.compile(re.escape(prefix) + re.escape(separator).join([r"(0|[1-9]\d*)"] * rank))

    def parse(name: str) -> tuple[int, ...] | None:
        match = pattern.fullmatch(name)
        return tuple(map(int, match.groups())) if match else None

    return _Naming("", lambda place: prefix + separator.join(map(str, place)), parse)


def _ranges(scale: dict[str, Any], size: tuple[int, ...]) -> _Naming:
    """Of neuroglancer: first voxel and end along x, y and z."""
    offset, shape = scale.get("voxel_offset", [0, 0, 0]), scale["size"]
    pattern = re.compile("_".join([r"(-?\d+)-(-?\d+)"] * 3))

    def name(place: tuple[int, ...]) -> str:
        return f"{scale['key']}/" + "_".join(
            f"{o + i * n}-{o + min((i + 1) * n, end)}"
            for i, n, o, end in zip(place, size, offset, shape, strict=False)
        )

    def parse(text: str) -> tuple[int, ...] | None:
        match = pattern.fullmatch(text)
        if match is None:
            return None
        starts = [int(start) for start in match.groups()[::2]]
        return (*((s - o) // n for s, o, n in zip(starts, offset, size, strict=False)), 0)

    return _Naming(f"{scale['key']}/", name, parse)


def _other_names(names: list[str]) -> str | None:
    """A file that looks like a chunk of another naming."""
    digits = re.compile(r"(c[./])?\d+([./_-]-?\d+)+(\.gz|\.br)?")
    return next((name for name in sorted(names) if digits.fullmatch(name)), None)


def _rename(other: str, spec: dict[str, Any]) -> str:
    if other.endswith(_COMPRESSED):
        return f"unpack the {other[-3:]} files (CloudVolume packs them, unless compress=False)"
    if spec["driver"] == "zarr":
        separator = "/" if "/" in other else "."
        return f'correct "dimension_separator" in .zarray to "{separator}"'
    return "correct the metadata"
