"""Alignment and histogram equalisation of a volume, slice by slice, with its labels.

Section 2.1.2 of Pagano et al. 2023. A run that is interrupted continues when it is
started again: estimates and finished slices are kept with the unfinished volume.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vemseg_jax
from vemseg_jax.data.preprocess import equalization
from vemseg_jax.data.preprocess.alignment import (
    Box,
    translate_ignore,
    translate_image,
    translate_label,
)
from vemseg_jax.data.preprocess.estimation import Alignment, AlignOptions, align
from vemseg_jax.data.preprocess.shift_table import CSV_NAME, PLOT_NAME
from vemseg_jax.data.store import ome
from vemseg_jax.data.store.atomic import AtomicDirectory
from vemseg_jax.data.store.downsample import (
    FACTOR,
    downsample_ignore,
    downsample_label,
    downsampled_size,
)
from vemseg_jax.data.store.in_flight import in_flight
from vemseg_jax.data.store.label_writer import ANNOTATION, PREDICTION, PROBABILITY, LabelWriter
from vemseg_jax.data.store.slices import read_plane
from vemseg_jax.data.store.volume import FULL, IGNORE, LABELS, TRAINING, Volume, open_volume
from vemseg_jax.data.store.volume_writer import (
    VolumeWriter,
    check_output,
    create_volume,
    open_resumable,
)
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path
from vemseg_jax.progress import track

NONE = "none"
HISTOGRAMS = (NONE, equalization.EQUALIZE, equalization.CLAHE, equalization.MATCH)
FOLDER = "preprocess"
_WRITTEN_ANEW = {"format", "complete", "downsample", "dtype_max", "slice_names", "slice_mean",
                 "slice_std", "ignore", "source", "version", FOLDER}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PreprocessOptions:
    """What is done to a volume; the flags of `vemseg-preprocess`.

    Attributes:
      align: how slices are aligned; None to leave them where they are.
      histogram: one of HISTOGRAMS.
      reference_slice: z of the slice that "match" takes its histogram from.
      clip_limit: of CLAHE, 0-1.
      overwrite: replace an earlier volume when the new one is complete.
    """

    align: AlignOptions | None = None
    histogram: str = NONE
    reference_slice: int | None = None
    clip_limit: float = 0.01
    overwrite: bool = False


def preprocess(source: str | Path, output: str | Path, options: PreprocessOptions) -> Path:
    """Writes an aligned or equalised copy of a volume; prints what was done.

    Annotations and the ignore mask move with their slices, predictions are left out.

    Args:
      source: a volume that vemseg-convert or this function wrote.
      output: the OME-Zarr directory to make.
      options: what to do.

    Returns:
      The path of the volume.

    Raises:
      InputError: options or a volume that cannot be used, or slices that share too small an area.
    """
    output = local_path(output, flag="--output")
    volume = open_volume(source)
    _check(volume, output, options)
    check_output(output, overwrite=options.overwrite)
    names = _labels_to_carry(volume)
    directory = open_resumable(output, key=_key(volume, names, options))
    if directory.resumed:
        print(f"going on with the interrupted run that left {directory.partial}")
    elif directory.removed_stale:
        print(
            f"starting afresh: {directory.partial} was left by a run with other flags or another"
            " input, and is removed"
        )
    try:
        alignment = None
        if options.align is not None:
            alignment = align(volume, options.align, directory=directory, folder=FOLDER)
        _write(volume, directory, names=names, alignment=alignment, options=options)
    except BaseException:
        directory.abandon()
        print(f"what was done is kept in {directory.partial}; the same command goes on from there")
        raise
    if alignment is not None:
        print(f"shifts      {output / FOLDER / CSV_NAME} and {PLOT_NAME}")
    return output


def _check(volume: Volume, output: Path, options: PreprocessOptions) -> None:
    if options.align is None and options.histogram == NONE:
        raise InputError(
            "nothing to do: give --align, --histogram=equalize, --histogram=clahe or"
            " --histogram=match"
        )
    if output.resolve() == volume.path.resolve():
        raise InputError(f"--output={output}: is also the --volume; choose another output")
    if volume.path.resolve() in output.resolve().parents:
        raise InputError(f"--output={output}: lies within the --volume; choose another output")
    if options.histogram not in HISTOGRAMS:
        raise InputError(f"--histogram={options.histogram}: one of {', '.join(HISTOGRAMS)}")
    z, depth = options.reference_slice, volume.shape[0]
    if options.histogram == equalization.MATCH:
        if z is None:
            raise InputError("--histogram=match: needs --reference_slice, the z to match")
        if not 0 <= z < depth:
            raise InputError(
                f"--reference_slice={z}: {volume.path} has slices 0 to {depth - 1}; choose one"
            )
    elif z is not None:
        raise InputError(f"--reference_slice={z}: only --histogram=match uses it; leave it out")
    if not 0 < options.clip_limit <= 1:
        raise InputError(f"--clip_limit={options.clip_limit:g}: above 0, and 1 at most")
    if options.align is not None:
        options.align.check(volume)


def _labels_to_carry(volume: Volume) -> tuple[str, ...]:
    kinds = {name: volume.label_info(name).get("kind") for name in volume.label_names}
    left_out = [name for name, kind in kinds.items() if kind in (PREDICTION, PROBABILITY)]
    if left_out:
        print(f"labels      not carried over, predict again: {', '.join(left_out)}")
    return tuple(name for name in kinds if name not in left_out)


def _key(volume: Volume, names: tuple[str, ...], options: PreprocessOptions) -> str:
    """Stands for input and options; metadata files are rewritten with whatever they describe."""
    files = [volume.path / "zarr.json"]
    files += [volume.path / LABELS / name / "zarr.json" for name in names]
    content = {
        "version": vemseg_jax.__version__,
        "volume": str(volume.path.resolve()),
        "metadata": [
            [hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns]
            for file in files
        ],
        "options": {**dataclasses.asdict(options), "overwrite": None},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _attributes(
    volume: Volume, alignment: Alignment | None, options: PreprocessOptions
) -> dict[str, Any]:
    """What the volume recorded besides what is written anew, and what is done to it now."""
    info = ome.read_group(volume.path)["vemseg"]
    step: dict[str, Any] = {"volume": str(volume.path), "fingerprint": volume.fingerprint}
    if options.histogram != NONE:
        step["histogram"] = options.histogram
    if options.histogram == equalization.MATCH:
        step["reference_slice"] = options.reference_slice
    if options.histogram == equalization.CLAHE:
        step["clip_limit"] = options.clip_limit
    if alignment is not None:
        step["align"] = alignment.record()
    kept = {name: value for name, value in info.items() if name not in _WRITTEN_ANEW}
    return {**kept, FOLDER: [*info.get(FOLDER, []), step]}


@dataclasses.dataclass(frozen=True)
class _Slices:
    """The slices of the new volume, made from those of the old."""

    volume: Volume
    box: Box
    shifts: np.ndarray

    def start(self, z: int) -> tuple[float, float]:
        """Where the box begins in slice `z` of the old volume, full-resolution pixels."""
        return self.box.top - float(self.shifts[z, 0]), self.box.left - float(self.shifts[z, 1])

    @property
    def size(self) -> tuple[int, int]:
        return self.box.height, self.box.width

    def image(self, z: int) -> np.ndarray:
        return translate_image(read_plane(self.volume.image(FULL), z), self.start(z), self.size)

    def ignored(self, z: int) -> np.ndarray | None:
        """Pixels to leave out, bool; None where none is or the mask has no full resolution."""
        if not self.volume.has_ignore or FULL not in self.volume.label_info(IGNORE)["levels"]:
            return None
        mask = read_plane(self.volume.label(IGNORE, FULL), z)
        return translate_ignore(mask, self.start(z), self.size) if mask.any() else None


def _write(
    volume: Volume,
    directory: AtomicDirectory,
    *,
    names: tuple[str, ...],
    alignment: Alignment | None,
    options: PreprocessOptions,
) -> None:
    depth, h, w = volume.shape
    if alignment is None:
        slices = _Slices(volume, Box(0, 0, h, w), np.zeros((depth, 2)))
    else:
        slices = _Slices(volume, alignment.box, alignment.shifts)
    with create_volume(
        directory.final,
        shape=(depth, *slices.size),
        dtype=volume.dtype,
        voxel_size=volume.voxel_size,
        downsample=volume.downsample,
        overwrite=options.overwrite,
        slice_names=volume.slice_names,
        source=volume.source,
        attributes=_attributes(volume, alignment, options),
        directory=directory,
    ) as writer:
        labels = [_CarriedLabel(name, slices, writer) for name in names]
        histogram = _histogram(slices, options)

        def work(z: int) -> None:
            for label in labels:
                label.write(z)
            plane = slices.image(z)
            if histogram is not None:
                ignored = slices.ignored(z)
                plane = histogram(plane, None if ignored is None else ~ignored)
            writer.write(z, plane)

        for label in labels:
            label.keep(writer.finished)
        todo = [z for z in range(depth) if z not in writer.finished]
        if writer.finished:
            print(f"slices      {len(writer.finished)} of {depth} are written already")
        for _ in track(in_flight(work, todo), total=len(todo), what="slices", unit="slice"):
            pass
        for label in labels:
            label.finish()


def _histogram(
    slices: _Slices, options: PreprocessOptions
) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None:
    if options.histogram == equalization.EQUALIZE:
        return equalization.equalize
    if options.histogram == equalization.CLAHE:
        return lambda plane, valid: equalization.clahe(plane, clip_limit=options.clip_limit)
    z = options.reference_slice
    if z is None:
        return None
    ignored = slices.ignored(z)
    return equalization.matcher(slices.image(z), None if ignored is None else ~ignored)


class _CarriedLabel:
    """Copies a label slice by slice."""

    def __init__(self, name: str, slices: _Slices, writer: VolumeWriter):
        info = slices.volume.label_info(name)
        self._slices = slices
        self._kind = info.get("kind", ANNOTATION)
        self._level = FULL if FULL in info["levels"] else TRAINING
        self._array = slices.volume.label(name, self._level)
        self._labelled = frozenset(slices.volume.labelled_slices(name))
        kept = {k: v for k, v in info.items() if k not in ("kind", "levels", "labelled_slices")}
        self._writer: LabelWriter = writer.create_label(
            name, levels=info["levels"], kind=self._kind, attributes=kept
        )

    def keep(self, finished: frozenset[int]) -> None:
        for z in self._labelled & finished:
            self._writer.keep(z)

    def write(self, z: int) -> None:
        if z not in self._labelled:
            return
        plane, levels = self._translate(z), self._writer.levels
        self._writer.write(z, self._level, plane)
        if self._level == FULL and TRAINING in levels and self._slices.volume.downsample != 1:
            self._writer.write(z, TRAINING, self._downsample(plane))

    def _translate(self, z: int) -> np.ndarray:
        plane = read_plane(self._array, z)
        (y, x), size = self._slices.start(z), self._slices.size
        if self._level == TRAINING and self._slices.volume.downsample != 1:
            # Pixel i of the coarse level lies at 4i + 1.5 of the full one, in both volumes.
            size = downsampled_size(size[0]), downsampled_size(size[1])
            y, x = y / FACTOR, x / FACTOR
        if self._kind == IGNORE:
            return translate_ignore(plane, (y, x), size)
        return translate_label(plane, (y, x), size)

    def _downsample(self, plane: np.ndarray) -> np.ndarray:
        if self._kind == IGNORE:
            return downsample_ignore(plane)
        return downsample_label(plane)

    def finish(self) -> None:
        self._writer.finish()
