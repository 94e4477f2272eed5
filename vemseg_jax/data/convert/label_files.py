"""From label files to masks: which slices they label, and what is said about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vemseg_jax.data.convert.empty_slices import EMPTY
from vemseg_jax.data.convert.label_flags import LabelFlags, by_structure, mask_rules
from vemseg_jax.data.convert.label_placing import EVERYWHERE, LabelPlacing, Placement
from vemseg_jax.data.convert.label_values import MaskRule
from vemseg_jax.data.convert.numbering import Count
from vemseg_jax.data.convert.pairing import count_labels, pair_by_number
from vemseg_jax.data.convert.pairing_csv import read_pairing
from vemseg_jax.data.formats.file_names import find_file, find_path
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.data.formats.stores import Location
from vemseg_jax.data.formats.tiff.stack import open_files
from vemseg_jax.data.store.volume import UNLABELLED
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path


@dataclass(frozen=True)
class LabelPlan:
    """The labels of one structure: slice z of the volume is slice `pairs[z]` of `source`.

    Attributes:
      name: of the structure.
      source: its labels.
      pairs: as above, of the slices that count as labelled.
      rule: what values mean.
      placement: where in a slice its pixels lie.
      origin: what was given: the source, or the CSV that lists its files.
      counted: how numbers of files count slices; None where nothing counts them.
      chosen: whether the labelled slices were given.
      unlabelled_slices: "empty", "none", or None where nothing is said.
    """

    name: str
    source: SliceSource
    pairs: dict[int, int]
    rule: MaskRule
    origin: Location
    placement: Placement = EVERYWHERE
    counted: str | None = None
    chosen: bool = False
    unlabelled_slices: str | None = None

    @property
    def keeps_empty(self) -> bool:
        """Whether slices without the structure count as labelled."""
        return self.unlabelled_slices != EMPTY or self.chosen

    def file(self, z: int) -> str:
        """Where the label of slice z comes from, in short."""
        index = self.pairs[z]
        return self.source.names[index] if self.source.has_files else f"slice {index}"

    def read(self, z: int) -> np.ndarray:
        """The mask of slice z, `[h, w]` uint8: 0, 1 or 255 (not labelled)."""
        index = self.pairs[z]
        mask = self.rule.mask(self.source.read(index), self.source.where(index))
        return self.placement.lay(mask, fill=UNLABELLED)


@dataclass(frozen=True)
class _Labels:
    """The labels of a structure before its flags are looked at."""

    name: str
    source: SliceSource
    pairs: dict[int, int]
    origin: Location
    placement: Placement
    counted: str | None

    @property
    def files(self) -> set[str]:
        return {str(self.source.file(index)) for index in self.pairs.values()}


def plan_labels(
    images: SliceSource,
    *,
    labels: Sequence[tuple[str, Location]],
    labels_csv: Path | None,
    flags: LabelFlags,
    placing: LabelPlacing,
) -> list[LabelPlan]:
    """Pairs every label with its slice and checks all headers; no pixel is read.

    Args:
      images: what is labelled.
      labels: structure and where its labels are: a folder, paired by trailing number, or a
        stack or OME-Zarr with as many slices as `images`. Several structures may share one.
      labels_csv: an explicit pairing, see `read_pairing`.
      flags: what is said about them.
      placing: opens labels and says where they lie in the images.

    Raises:
      InputError: the labels do not fit the images or are ambiguous.
    """
    found: list[_Labels] = []
    for name, path in labels:
        source = placing.open(name, path)
        placement = placing.place(name, source)
        count = count_source(images, source, flags.first_slice)
        pairs = pair_source(images, source, placement, first=count.first if count else 0)
        counted = count.text if count else None
        found.append(_Labels(name, source, pairs, source.path, placement, counted))
    if labels_csv is not None:
        found += _csv_labels(placing, labels_csv, flags.first_slice)
    names = [label.name for label in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"--labels={name}=…: structure {name!r} is given twice; give every structure once"
            )
    for flag, given in placing.named():
        by_structure(flag, given, names)
    rules = mask_rules({label.name: label.files for label in found}, flags)
    slices = by_structure("labelled_slices", flags.labelled_slices, names)
    empty = by_structure("unlabelled_slices", flags.unlabelled_slices, names)
    plans = []
    for label in found:
        pairs, chosen = label.pairs, label.name in slices
        if chosen:
            if label.source.has_files:
                raise InputError(
                    f"--labelled_slices={label.name}=…: {label.source.path} is a folder, whose"
                    " files say which slices are labelled; the flag is for stacks"
                )
            if label.name in flags.unlabelled_slices:
                raise InputError(
                    f"--unlabelled_slices={label.name}=…: --labelled_slices={label.name}=… says"
                    " which slices are labelled already; give one of the two"
                )
            pairs = _only(label.name, slices[label.name], pairs)
        plans.append(
            LabelPlan(
                label.name,
                label.source,
                pairs,
                rules[label.name],
                label.origin,
                label.placement,
                counted=label.counted,
                chosen=chosen,
                unlabelled_slices=empty.get(label.name),
            )
        )
    return plans


def _csv_labels(placing: LabelPlacing, path: Path, first_slice: int | None) -> list[_Labels]:
    path, images = find_path(local_path(path, flag="--labels_csv")), placing.images
    image_names = images.names if images.has_files else images.shape[0]
    pairing = read_pairing(path, image_names, first_slice=first_slice)
    found = []
    for name, listed in pairing.labels.items():
        source = open_files(
            path.parent,
            [find_file(path.parent, file.name, table=path) for file in listed],
            names=[file.name for file in listed],
            label=True,
        )
        _check_plane(images, source)
        placing.place(name, source)
        pairs = {file.z: index for index, file in enumerate(listed)}
        found.append(_Labels(name, source, pairs, path, EVERYWHERE, pairing.counted))
    return found


def count_source(images: SliceSource, source: SliceSource, given: int | None) -> Count | None:
    """How file names of a label or mask source count slices; None where they do not.

    They do where labels are files and the images are not.

    Raises:
      InputError: numbers are no slices, or fit counting from 0 and from 1.
    """
    if images.has_files or not source.has_files:
        return None
    return count_labels(images.shape[0], source.names, given, folder=Path(source.path))


def pair_source(
    images: SliceSource, source: SliceSource, placement: Placement = EVERYWHERE, *, first: int = 0
) -> dict[int, int]:
    """`{z of the images: slice of the source}` of a label or mask source.

    Args:
      images: what is labelled.
      source: labels or mask.
      placement: where it lies.
      first: the number of the first slice in file names, see `count_source`.

    Raises:
      InputError: shapes differ, or files of a folder cannot be paired.
    """
    if placement.shape is not None:
        return placement.pairs(source.shape[0])
    _check_plane(images, source)
    if not source.has_files:
        if source.shape[0] != images.shape[0]:
            raise InputError(
                f"{source.path}: {source.shape[0]} slices, the images have {images.shape[0]}; a"
                " stack needs as many, labels of a few slices go one per file into a folder"
            )
        return {z: z for z in range(images.shape[0])}
    image_names = images.names if images.has_files else images.shape[0]
    by_name = {name: index for index, name in enumerate(source.names)}
    pairs = pair_by_number(image_names, source.names, folder=Path(source.path), first=first)
    return {z: by_name[name] for z, name in pairs.items()}


def _check_plane(images: SliceSource, source: SliceSource) -> None:
    if source.shape[1:] != images.shape[1:]:
        raise InputError(
            f"{source.file(0)}: {source.shape[1]} x {source.shape[2]} pixels, the images have"
            f" {images.shape[1]} x {images.shape[2]}; labels and masks must have the shape of"
            " their slice"
        )


def _only(name: str, slices: Sequence[int], pairs: dict[int, int]) -> dict[int, int]:
    wrong = [z for z in slices if z not in pairs]
    if wrong or not slices or len(set(slices)) != len(slices):
        raise InputError(
            f"--labelled_slices={name}={','.join(map(str, slices))}:"
            f" {f'no slice {wrong[0]}' if wrong else 'empty or a slice twice'}; slices are"
            f" counted from 0 here, to {max(pairs)}"
        )
    return {z: pairs[z] for z in sorted(slices)}


def dilate_disk(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilates `mask` `[h, w]`, 0/1, by a disk: pixels within `radius` of a set one, in plane.

    Row by row of the disk, each a run of pixels: 2 passes per radius instead of one per pixel
    of the disk.
    """
    mask = mask.astype(bool)
    if radius == 0 or not mask.any():
        return mask.astype(np.uint8)
    runs = [mask]
    for shift in range(1, radius + 1):
        run = runs[-1].copy()
        run[:, shift:] |= mask[:, :-shift]
        run[:, :-shift] |= mask[:, shift:]
        runs.append(run)
    out = runs[radius].copy()
    for dy in range(1, radius + 1):
        run = runs[int((radius**2 - dy**2) ** 0.5)]
        out[dy:] |= run[:-dy]
        out[:-dy] |= run[dy:]
    return out.astype(np.uint8)
