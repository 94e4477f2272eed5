"""Writing label images, whole or not at all."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.atomic import AtomicDirectory, lock, unlock
from vemseg_jax.data.store.downsample import downsample_label
from vemseg_jax.data.store.label_layout import EXTRA, EXTRA_STEP, LabelLayout
from vemseg_jax.data.store.label_names import MASK_SUFFIX, names_prediction
from vemseg_jax.data.store.volume import (
    FULL,
    IGNORE,
    LABELS,
    PARTIAL_SUFFIX,
    TRAINING,
    UNLABELLED,
    Volume,
    open_volume,
    write_plane,
)
from vemseg_jax.errors import InputError

ANNOTATION, PREDICTION, PROBABILITY = "annotation", "prediction", "probability"
_LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class LabelWriter:
    """Writes one label image; a context manager. Made by `create_label`.

    Slices may be written in any order and from several threads. A slice that is not written
    keeps the fill value, and does not count as labelled.

    Attributes:
      levels: those written.
      attributes: recorded with the label; may be added to until the block ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        shape: tuple[int, int, int],
        voxel_size: tuple[float, float, float],
        downsample: int,
        levels: Sequence[str],
        kind: str,
        attributes: dict[str, Any],
        fill_value: int,
        atomic: AtomicDirectory | None = None,
        reopen: bool = False,
    ):
        self._directory, self._name, self._atomic = directory, name, atomic
        self._layout = LabelLayout.of(
            levels, shape=shape, voxel_size=voxel_size, downsample=downsample
        )
        self.levels = self._layout.levels
        self._paths = self._layout.paths
        self._written: dict[str, set[int]] = {path: set() for path in self._paths.values()}
        self.attributes = {**attributes, "kind": kind}
        self._arrays = self._layout.create(directory, fill_value=fill_value, reopen=reopen)

    def keep(self, z: int) -> None:
        """Counts slice `z` as written: an interrupted run wrote it at every level."""
        for written in self._written.values():
            written.add(int(z))

    def write(self, z: int, level: str, plane: np.ndarray) -> None:
        """Writes slice `z` at `level`: `plane` `[h, w]` uint8, 0, 1 or 255 (unlabelled)."""
        if level not in self._paths:
            raise ValueError(f"label {self._name!r} is written at {self.levels}, not at {level!r}")
        path = self._paths[level]
        expected = self._layout.planes[path]
        if plane.shape != expected or plane.dtype not in (np.uint8, np.bool_):
            raise ValueError(
                f"label {self._name!r}, slice {z}: {plane.dtype} {plane.shape} given, uint8"
                f" {expected} needed"
            )
        plane = plane.astype(np.uint8, copy=False)
        if not ((plane <= 1) | (plane == UNLABELLED)).all():
            raise ValueError(f"label {self._name!r}, slice {z}: values other than 0, 1 and 255")
        write_plane(self._arrays[path], z, plane)
        if self._layout.has_extra:
            write_plane(self._arrays[EXTRA], z, plane[::EXTRA_STEP, ::EXTRA_STEP])
        self._written[path].add(int(z))

    def write_mask(self, z: int, mask: np.ndarray) -> None:
        """Writes slice `z` at every level from full resolution.

        Args:
          z: the slice.
          mask: `[h, w]`, bool or 0, 1 and 255 (not labelled); a training pixel that draws on
            one of those is not labelled.
        """
        for level, path in self._paths.items():
            if path == "0" and level == TRAINING:
                continue
            self.write(z, level, mask if path == "0" else downsample_label(mask))

    def finish(self) -> None:
        """Writes the metadata, after which the label is complete."""
        first, *others = self._written.values()
        if any(slices != first for slices in others):
            raise ValueError(f"label {self._name!r}: levels with different slices written")
        info = {**self.attributes, "labelled_slices": sorted(first)}
        self._layout.write_group(self._directory, self._name, info)
        if self._atomic is not None:
            self._atomic.commit()
            list_labels(self._atomic.final.parent)

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                self.finish()
                return
            except BaseException:
                self._abandon()
                raise
        self._abandon()

    def _abandon(self) -> None:
        if self._atomic is not None:
            self._atomic.abandon()


def list_labels(directory: Path) -> None:
    """Rewrites the list of labels from the complete label images in `directory`."""
    taken = lock(directory, wait=True)
    try:
        names = sorted(
            entry.name
            for entry in directory.iterdir()
            if not entry.name.startswith(".") and (entry / "zarr.json").exists()
        )
        if names and names != _listed(directory):
            ome.write_group(directory, {"ome": {"version": "0.5", "labels": names}})
    finally:
        unlock(taken)


def _listed(directory: Path) -> list[str] | None:
    try:
        return ome.read_group(directory).get("ome", {}).get("labels")
    except InputError:  # not there yet, or damaged
        return None


def check_label_name(name: str, kind: str) -> None:
    """Raises InputError for a name that cannot name a label image of this kind."""
    if not _LABEL_NAME.fullmatch(name):
        raise InputError(
            f"label name {name!r}: letters, digits and underscores only, no digit first"
        )
    if (name == IGNORE) != (kind == IGNORE):
        raise InputError(f"label name {name!r}: {IGNORE!r} is reserved for the ignore mask")
    if kind == ANNOTATION and names_prediction(name):
        raise InputError(
            f"label name {name!r}: names ending in {MASK_SUFFIX} are kept for predictions"
        )


def create_label(
    volume: Volume | str | Path,
    name: str,
    *,
    levels: Sequence[str] = (FULL, TRAINING),
    kind: str = ANNOTATION,
    attributes: dict[str, Any] | None = None,
    fill_value: int | None = None,
    overwrite: bool = False,
) -> LabelWriter:
    """Adds a label image to an existing volume; use the result as a context manager.

    It is written under a hidden name and appears when the block ends without an exception.

    Args:
      volume: the volume, or its path.
      name: letters, digits and underscores.
      levels: FULL, TRAINING or both.
      kind: "annotation", "prediction" or "ignore".
      attributes: provenance, recorded beside kind, levels and labelled_slices.
      fill_value: what a slice that is not written reads as; 255, or 0 for the ignore mask.
      overwrite: replace a label of this name and kind.

    Raises:
      InputError: the name is taken (by another kind even with `overwrite`) or not allowed, or
        another process is writing it.
    """
    volume = volume if isinstance(volume, Volume) else open_volume(volume)
    check_label_name(name, kind)
    final = volume.path / LABELS / name
    if final.exists():
        there = volume.label_info(name).get("kind") if name in volume.label_names else "unlisted"
        if there != kind:
            raise InputError(
                f"{final}: a label of kind {there!r} has this name; choose another for the {kind}"
            )
        if not overwrite:
            raise InputError(f"{final}: exists already; give --overwrite to replace it")
    atomic = AtomicDirectory(final, partial=final.with_name(f".{name}{PARTIAL_SUFFIX}"))
    try:
        return LabelWriter(
            atomic.partial,
            name=name,
            shape=volume.shape,
            voxel_size=volume.voxel_size,
            downsample=volume.downsample,
            levels=levels,
            kind=kind,
            attributes=attributes or {},
            fill_value=default_fill_value(kind) if fill_value is None else fill_value,
            atomic=atomic,
        )
    except BaseException:
        atomic.abandon()
        raise


def default_fill_value(kind: str) -> int:
    """What a slice that nobody wrote reads as: nothing to ignore, or unlabelled."""
    return 0 if kind == IGNORE else UNLABELLED
