"""Writing volumes, so that an unfinished one never passes for a complete one."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import vemseg_jax
from vemseg_jax.data.store import ome
from vemseg_jax.data.store.atomic import AtomicDirectory, Journal
from vemseg_jax.data.store.downsample import FACTOR, downsample_image
from vemseg_jax.data.store.label_writer import (
    ANNOTATION,
    PREDICTION,
    LabelWriter,
    check_label_name,
    create_label,
    default_fill_value,
    list_labels,
)
from vemseg_jax.data.store.normalization import slice_statistics
from vemseg_jax.data.store.volume import (
    DTYPE_MAX,
    FORMAT,
    FULL,
    IGNORE,
    LABELS,
    PARTIAL_SUFFIX,
    TRAINING,
    array_path,
    create_array,
    is_volume,
    plane_shape,
    write_plane,
)
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

__all__ = [
    "ANNOTATION",
    "PREDICTION",
    "LabelWriter",
    "VolumeWriter",
    "check_output",
    "create_label",
    "create_volume",
    "open_resumable",
]


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises InputError unless a volume may be written to `path`."""
    if path.name.endswith(PARTIAL_SUFFIX) or path.name in ("", ".", ".."):
        raise InputError(f"{path}: not a name for a volume; give one like volume.zarr")
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{path}: exists already; give --overwrite to replace it")
    if path.is_symlink() or not is_volume(path):
        raise InputError(
            f"{path}: is not a volume that vemseg-convert wrote and will not be overwritten;"
            " choose another output"
        )


class VolumeWriter:
    """Writes a volume slice by slice; a context manager. Made by `create_volume`.

    Every slice must be written, in any order and from several threads if that helps. The
    volume appears at its path when the block ends without an exception; until then it is
    `<name>.partial` beside it, and after an exception nothing; with an `AtomicDirectory` that has
    a resume key it stays, and the slices written need not be written again.

    Attributes:
      removed_stale: whether the remains of an interrupted conversion were removed.
      finished: slices that an interrupted run with the same key wrote.
    """

    def __init__(
        self,
        atomic: AtomicDirectory,
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        voxel_size: tuple[float, float, float],
        downsample: int,
        slice_names: Sequence[str],
        source: str,
        attributes: dict[str, Any],
        resumable: bool = False,
    ):
        self.removed_stale = atomic.removed_stale
        self._atomic, self._directory = atomic, atomic.partial
        self._shape, self._voxel_size, self._downsample = shape, voxel_size, downsample
        self._dtype, self._slice_names, self._source = dtype, list(slice_names), source
        self._attributes = attributes
        self._statistics: dict[int, tuple[float, float]] = {}
        self._resumable = resumable
        self._journal = Journal(atomic.notes / "slices.jsonl") if resumable else None
        if self._journal is not None:
            self._statistics = {z: (mean, std) for z, mean, std in self._journal.entries}
        self.finished = frozenset(self._statistics)
        self._levels = (FULL,) if downsample == 1 else (FULL, TRAINING)
        self._arrays = {
            level: create_array(
                self._directory / array_path(level, downsample),
                shape=(shape[0], *plane_shape(shape, level, downsample)),
                dtype=dtype,
                fill_value=0,
                reopen=resumable,
            )
            for level in self._levels
        }

    def write(self, z: int, plane: np.ndarray) -> None:
        """Writes slice `z` at every level from full resolution: `[h, w]`, the volume's dtype.

        Labels of the slice come first where the run may be resumed: with this it is finished.
        """
        if plane.shape != self._shape[1:] or plane.dtype != self._dtype:
            raise ValueError(
                f"slice {z}: {plane.dtype} {plane.shape} given, {self._dtype}"
                f" {self._shape[1:]} needed"
            )
        statistics = slice_statistics(plane)
        write_plane(self._arrays[FULL], z, plane)
        if TRAINING in self._arrays:
            write_plane(self._arrays[TRAINING], z, downsample_image(plane))
        if self._journal is not None:
            self._journal.add([int(z), *statistics])
        self._statistics[int(z)] = statistics

    def create_label(
        self,
        name: str,
        *,
        levels: Sequence[str] = (FULL, TRAINING),
        kind: str = ANNOTATION,
        attributes: dict[str, Any] | None = None,
    ) -> LabelWriter:
        """A label of the volume that is being written; finish it before the volume."""
        check_label_name(name, kind)
        return LabelWriter(
            self._directory / LABELS / name,
            name=name,
            shape=self._shape,
            voxel_size=self._voxel_size,
            downsample=self._downsample,
            levels=levels,
            kind=kind,
            attributes=attributes or {},
            fill_value=default_fill_value(kind),
            reopen=self._resumable,
        )

    def finish(self) -> None:
        """Writes the metadata and puts the volume in its place."""
        depth = self._shape[0]
        missing = sorted(set(range(depth)) - set(self._statistics))
        if missing:
            raise ValueError(f"{self._atomic.final}: slice {missing[0]} was never written")
        labels = self._directory / LABELS
        if labels.exists():
            list_labels(labels)
        info = {
            **self._attributes,
            "format": FORMAT,
            "complete": True,
            "downsample": self._downsample,
            "dtype_max": DTYPE_MAX[self._dtype.name],
            "slice_names": self._slice_names,
            "slice_mean": [self._statistics[z][0] for z in range(depth)],
            "slice_std": [self._statistics[z][1] for z in range(depth)],
            "ignore": IGNORE if (labels / IGNORE).exists() else None,
            "source": self._source,
            "version": vemseg_jax.__version__,
        }
        levels = [("0", 1, 0.0), ("1", FACTOR, 1.5)][: len(self._levels)]
        name = self._atomic.final.name.removesuffix(".zarr") or "image"
        metadata = ome.multiscales(name, voxel_size=self._voxel_size, levels=levels)
        ome.write_group(self._directory, {"ome": metadata, "vemseg": info})
        self._atomic.commit()

    def __enter__(self) -> "VolumeWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._journal is not None:
            self._journal.close()
        if kind is None:
            try:
                self.finish()
                return
            except BaseException:
                self._atomic.abandon()
                raise
        self._atomic.abandon()


def create_volume(
    path: str | Path,
    *,
    shape: tuple[int, int, int],
    dtype: np.dtype | type,
    voxel_size: tuple[float, float, float],
    downsample: int,
    overwrite: bool = False,
    slice_names: Sequence[str] | None = None,
    source: str = "",
    attributes: dict[str, Any] | None = None,
    directory: AtomicDirectory | None = None,
) -> VolumeWriter:
    """Starts a volume; use the result as a context manager.

    Args:
      path: the OME-Zarr directory to make.
      shape: full resolution, zyx.
      dtype: uint8 or uint16.
      voxel_size: nm, zyx, at full resolution.
      downsample: 4 for a training-scale level, 1 when the data is at that scale already.
      overwrite: replace a volume at `path`, once the new one is complete.
      slice_names: one per slice; by default the slice numbers.
      source: where the images came from.
      attributes: further entries of the "vemseg" attribute.
      directory: of `open_resumable`, to go on with what an interrupted run wrote.

    Raises:
      InputError: `path` exists, or is not a volume and so is never replaced, another process is
        writing it, or slices are too small or of another dtype.
    """
    path, dtype = local_path(path), np.dtype(dtype)
    if dtype.name not in DTYPE_MAX:
        raise InputError(f"{path}: images of type {dtype}; uint8 or uint16 is needed")
    if downsample not in (1, FACTOR):
        raise InputError(f"{path}: downsample {downsample}; it is {FACTOR} or 1")
    if len(shape) != 3 or min(*shape, *plane_shape(shape, TRAINING, downsample)) < 1:
        raise InputError(f"{path}: shape {tuple(shape)} is too small; zyx, no training pixel left")
    if len(voxel_size) != 3 or not all(0 < size < float("inf") for size in voxel_size):
        raise InputError(f"{path}: voxel size {voxel_size}; three positive lengths in nm, zyx")
    names = [str(z) for z in range(shape[0])] if slice_names is None else list(slice_names)
    if len(names) != shape[0]:
        raise ValueError(f"{len(names)} slice names for {shape[0]} slices")
    atomic = directory or AtomicDirectory(path, partial=path.with_name(path.name + PARTIAL_SUFFIX))
    try:
        check_output(path, overwrite=overwrite)
        return VolumeWriter(
            atomic,
            shape=(int(shape[0]), int(shape[1]), int(shape[2])),
            dtype=dtype,
            voxel_size=(float(voxel_size[0]), float(voxel_size[1]), float(voxel_size[2])),
            downsample=downsample,
            slice_names=names,
            source=source,
            attributes=attributes or {},
            resumable=directory is not None,
        )
    except BaseException:
        atomic.abandon()
        raise


def open_resumable(path: Path, *, key: str) -> AtomicDirectory:
    """The directory of a volume to be written at `path`, kept from run to run with the same key.

    Args:
      path: the OME-Zarr directory to make.
      key: stands for everything the volume follows from: input and options.

    Raises:
      InputError: another process is writing it, or it cannot be created.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    return AtomicDirectory(path, partial=partial, resume_key=key)
