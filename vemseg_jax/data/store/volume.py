"""Volumes on disk: an OME-Zarr 0.5 image with a training-scale level and its labels.

Arrays are `[z, y, x]`, lengths in nm. Beside the "ome" metadata that any viewer reads, the
attribute "vemseg" holds what training needs. Volumes are written by `volume_writer`.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.downsample import downsampled_size
from vemseg_jax.data.store.failures import is_damage, reason
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

FULL, TRAINING = "full", "training"
UNLABELLED = 255
IGNORE = "ignore"
FORMAT = 1
PARTIAL_SUFFIX = ".partial"
LABELS = "labels"
CHUNK = 512
DTYPE_MAX = {"uint8": 255, "uint16": 65535}


def array_path(level: str, downsample: int) -> str:
    """Name of the array that holds a level: "0" full resolution, "1" training scale."""
    if level not in (FULL, TRAINING):
        raise ValueError(f"level {level!r}; there are {FULL!r} and {TRAINING!r}")
    return "1" if level == TRAINING and downsample != 1 else "0"


def plane_shape(shape: tuple[int, int, int], level: str, downsample: int) -> tuple[int, int]:
    """`(h, w)` of a level of a volume of `shape` zyx at full resolution."""
    if array_path(level, downsample) == "0":
        return shape[1], shape[2]
    return downsampled_size(shape[1]), downsampled_size(shape[2])


def open_array(path: Path) -> ts.TensorStore:
    """Opens a Zarr 3 array for reading.

    Raises:
      InputError: it is missing or damaged.
    """
    # tensorstore takes no path with "..".
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(local_path(path))}}
    try:
        return ts.open(spec, open=True, read=True).result()
    except (ValueError, OSError) as error:
        why = reason(error, damaged="not a readable Zarr array; convert the volume again")
        raise InputError(f"{path}: {why}") from error


def create_array(
    path: Path,
    *,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    fill_value: int,
    reopen: bool = False,
    part: tuple[int, int] | None = None,
) -> ts.TensorStore:
    """Creates a sharded Zarr 3 array `[z, y, x]`, one slice a shard, chunks of 512 x 512.

    With `reopen` one that is there already, with the same metadata, is opened with its content.
    With `part` (h, w), multiples of 512 where smaller than a slice, shards are no larger.
    """
    chunk = (1, min(CHUNK, shape[1]), min(CHUNK, shape[2]))
    most = (1, *(min(*sizes) for sizes in zip(part or shape[1:], shape[1:], strict=True)))
    shard = [n * -(-size // n) for size, n in zip(most, chunk, strict=True)]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    # zstd alone decodes much of what is damaged without a complaint.
    checksum = {"name": "crc32c"}
    sharding = {
        "chunk_shape": chunk,
        "codecs": [little, {"name": "zstd", "configuration": {"level": 1}}, checksum],
        "index_codecs": [little, checksum],
    }
    metadata = {
        "shape": shape,
        "data_type": np.dtype(dtype).name,
        "fill_value": fill_value,
        "dimension_names": list(ome.AXES),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(local_path(path))},
        "metadata": metadata,
    }
    try:
        return ts.open(spec, create=True, open=reopen).result()
    except (ValueError, OSError) as error:
        if is_damage(error):
            raise
        raise InputError(f"{path}: {reason(error, writing=True)}") from error


def write_plane(array: ts.TensorStore, z: int, plane: np.ndarray) -> None:
    """Writes one slice `[h, w]` of an array `[z, y, x]`.

    Raises:
      InputError: it could not be stored, say because the disk is full.
    """
    try:
        array[z].write(plane).result()
    except (ValueError, OSError) as error:
        path = array.spec().to_json()["kvstore"]["path"]
        raise InputError(f"{path}: slice {z}: {reason(error, writing=True)}") from error


def is_stored(array: Path, z: int) -> bool:
    """Whether an array `[z, y, x]` on disk, one slice a file, has a file of slice `z`.

    A slice that holds the fill value throughout has none.
    """
    return (array / "c" / str(z) / "0" / "0").is_file()


def is_volume(path: Path) -> bool:
    """Whether `path` is a directory that this package wrote as a volume, of any format."""
    try:
        return "format" in ome.read_group(path).get("vemseg", {})
    except (InputError, TypeError):
        return False


class Volume:
    """An image volume with its labels, open for reading. Made by `open_volume`.

    Attributes:
      path: the OME-Zarr directory.
      shape: full resolution, zyx.
      voxel_size: nm, zyx, at full resolution.
      downsample: full-resolution pixels per training pixel along y and x, 4 or 1.
      dtype, dtype_max: of the grey values, uint8 and 255 or uint16 and 65535.
      slice_names: file name of every slice.
      slice_mean, slice_std: `[z]` float64, of every slice at full resolution on the 0-1 scale
        (divided by `dtype_max`); the standard deviation is unbiased.
      source: where the images came from.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]):
        info = attributes["vemseg"]
        self.path = path
        self.downsample = int(info["downsample"])
        self._arrays = {"0": open_array(path / "0")}
        if self.downsample != 1:
            self._arrays["1"] = open_array(path / "1")
        full = self._arrays["0"]
        z, y, x = (int(n) for n in full.shape)
        self.shape = (z, y, x)
        datasets = attributes["ome"]["multiscales"][0]["datasets"]
        dz, dy, dx = (float(s) for s in datasets[0]["coordinateTransformations"][0]["scale"])
        self.voxel_size = (dz, dy, dx)
        self.dtype = np.dtype(full.dtype.numpy_dtype)
        self.dtype_max = int(info["dtype_max"])
        self.slice_names = tuple(str(name) for name in info["slice_names"])
        self.slice_mean = np.asarray(info["slice_mean"], np.float64)
        self.slice_std = np.asarray(info["slice_std"], np.float64)
        self.source = str(info.get("source", ""))
        lengths = {len(self.slice_names), len(self.slice_mean), len(self.slice_std), z}
        levels = {level: (z, *self.plane_shape(level)) for level in (FULL, TRAINING)}
        if len(lengths) != 1 or any(self.image(a).shape != s for a, s in levels.items()):
            raise InputError(f"{path}: metadata and arrays disagree; convert the volume again")

    def __repr__(self) -> str:
        return f"Volume({str(self.path)!r}, shape={self.shape}, labels={self.label_names})"

    @property
    def fingerprint(self) -> str:
        """Tells whether two volumes hold the same images, wherever they lie on disk."""
        content = json.dumps([self.shape, self.slice_mean.tolist(), self.slice_std.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def plane_shape(self, level: str) -> tuple[int, int]:
        """`(h, w)` of one slice at a level, FULL or TRAINING."""
        return plane_shape(self.shape, level, self.downsample)

    def image(self, level: str) -> ts.TensorStore:
        """The image `[z, y, x]`, `dtype`; both levels are one array when downsample is 1."""
        return self._arrays[array_path(level, self.downsample)]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Every label image there is now: annotations, predictions and the ignore mask."""
        if not (self.path / LABELS / "zarr.json").exists():
            return ()
        return tuple(ome.read_group(self.path / LABELS).get("ome", {}).get("labels", ()))

    @property
    def has_ignore(self) -> bool:
        """Whether there is a mask of pixels to leave out of loss and metric."""
        return IGNORE in self.label_names

    def label_info(self, name: str) -> dict[str, Any]:
        """The "vemseg" attributes of a label: kind, levels, labelled_slices and provenance.

        Raises:
          InputError: there is no such label; lists those there are.
        """
        names = self.label_names
        if name not in names:
            known = ", ".join(names) or "none"
            raise InputError(f"{self.path}: no label {name!r}; the volume has: {known}")
        info = ome.read_group(self.path / LABELS / name).get("vemseg")
        if not isinstance(info, dict) or "labelled_slices" not in info:
            raise InputError(
                f"{self.path / LABELS / name}: does not record its labelled slices; labels are"
                " added with the converter or with create_label"
            )
        return info

    def labelled_slices(self, name: str) -> tuple[int, ...]:
        """Slices with a label, ascending; of a prediction the slices predicted."""
        return tuple(int(z) for z in self.label_info(name)["labelled_slices"])

    def label(self, name: str, level: str) -> ts.TensorStore:
        """A label image `[z, y, x]` uint8: 0 background, 1 structure, 255 unlabelled.

        Raises:
          InputError: there is no such label, or not at this level.
        """
        levels = self.label_info(name)["levels"]
        if array_path(level, self.downsample) not in {
            array_path(each, self.downsample) for each in levels
        }:
            raise InputError(
                f"{self.path}: label {name!r} has no level {level!r}; it has: {', '.join(levels)}"
            )
        return open_array(self.path / LABELS / name / array_path(level, self.downsample))


def open_volume(path: str | os.PathLike[str]) -> Volume:
    """Opens a volume for reading.

    Raises:
      InputError: it is missing, not a volume of this package, of another format version, or its
        conversion did not finish.
    """
    path = local_path(path)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    if path.name.endswith(PARTIAL_SUFFIX):
        raise InputError(f"{path}: an unfinished conversion; run the conversion again")
    if not path.exists():
        hint = f"only the unfinished {partial.name} is there; " if partial.exists() else ""
        raise InputError(f"{path}: no such volume; {hint}make one with vemseg-convert")
    if not (path / "zarr.json").is_file():
        raise InputError(
            f"{path}: not a volume (it has no zarr.json); give the .zarr directory that"
            " vemseg-convert wrote"
        )
    attributes = ome.read_group(path)
    info = attributes.get("vemseg")
    if not isinstance(info, dict):
        raise InputError(f"{path}: not written by vemseg-convert; convert it with --images={path}")
    if info.get("format") != FORMAT:
        raise InputError(
            f"{path}: volume format {info.get('format')!r}, this version reads {FORMAT}; convert"
            " it again"
        )
    if info.get("complete") is not True:
        raise InputError(f"{path}: an unfinished conversion; run the conversion again")
    try:
        return Volume(path, attributes)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path / 'zarr.json'}: damaged metadata; convert it again") from error
