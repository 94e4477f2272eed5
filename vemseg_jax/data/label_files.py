"""From label files to masks: which slices they label, and which of their values count."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vemseg_jax.data.format_tiff import open_files
from vemseg_jax.data.label_placing import EVERYWHERE, LabelPlacing, Placement
from vemseg_jax.data.pairing import pair_by_number, read_pairing
from vemseg_jax.data.slice_source import SliceSource
from vemseg_jax.data.stores import Location
from vemseg_jax.data.volume import UNLABELLED
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

ANY_VALUE = "any"
# Values of the label files that make up a structure, or every one above 0.
Values = tuple[int, ...] | str


@dataclass
class MaskRule:
    """Turns label values into masks.

    Attributes:
      name: of the structure.
      values: those that make it up; None for binary files, which hold 0 and one other value,
        the same in all of them.
      unlabelled: value of pixels that nobody labelled; None where there are none.
    """

    name: str
    values: Values | None
    unlabelled: int | None = None
    _found: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def mask(self, plane: np.ndarray, where: object) -> np.ndarray:
        """`plane` `[h, w]` of any integer type to uint8; `where` is for the message.

        0 background, 1 structure, 255 not labelled.

        Raises:
          InputError: values that are neither binary nor mapped.
        """
        if self.unlabelled is None:
            return self._mask(plane, where)
        unknown = plane == self.unlabelled
        mask = self._mask(np.where(unknown, np.zeros((), plane.dtype), plane), where)
        mask[unknown] = UNLABELLED
        return mask

    def _mask(self, plane: np.ndarray, where: object) -> np.ndarray:
        if self.values == ANY_VALUE:
            return (plane > 0).astype(np.uint8)
        if self.values is not None:
            mask = np.zeros(plane.shape, bool)
            for value in self.values:
                mask |= plane == value
            return mask.astype(np.uint8)
        value = int(plane.max())
        mask = plane == value
        if value < 0 or not (mask | (plane == 0)).all():
            raise InputError(f"{where}: label values {_listed(plane)}; {self._advice()}")
        if value == 0:
            return np.zeros(plane.shape, np.uint8)
        with self._lock:
            if self._found not in (None, value):
                raise InputError(
                    f"{where}: label value {value}, but {self._found} on another slice;"
                    f" {self._advice()}"
                )
            self._found = value
        return mask.astype(np.uint8)

    def _advice(self) -> str:
        return (
            "binary labels hold 0 and one other value: say which values are the structure, such"
            f" as --label_values={self.name}=1, {self.name}=1+2 or {self.name}=any"
        )

    def record(self) -> list[int] | str:
        """What was taken as the structure, for the label's attributes."""
        if self.values is None:
            return [] if self._found is None else [self._found]
        return self.values if isinstance(self.values, str) else list(self.values)


def _listed(plane: np.ndarray) -> str:
    values = np.unique(plane)
    text = ", ".join(str(int(v)) for v in values[:8])
    return text if len(values) <= 8 else f"{text}, … ({len(values)} in all)"


@dataclass(frozen=True)
class LabelPlan:
    """The labels of one structure: slice z of the volume is slice `pairs[z]` of `source`.

    `placement` says where in that slice its pixels lie.
    """

    name: str
    source: SliceSource
    pairs: dict[int, int]
    rule: MaskRule
    placement: Placement = EVERYWHERE

    def file(self, z: int) -> str:
        """Where the label of slice z comes from, in short."""
        index = self.pairs[z]
        return self.source.names[index] if self.source.has_files else f"slice {index}"

    def read(self, z: int) -> np.ndarray:
        """The mask of slice z, `[h, w]` uint8: 0, 1 or 255 (not labelled)."""
        index = self.pairs[z]
        mask = self.rule.mask(self.source.read(index), self.source.where(index))
        return self.placement.lay(mask, fill=UNLABELLED)


def plan_labels(
    images: SliceSource,
    *,
    labels: Sequence[tuple[str, Location]],
    labels_csv: Path | None,
    values: Mapping[str, Values],
    labelled_slices: Mapping[str, Sequence[int]],
    unlabelled: Mapping[str, int],
    placing: LabelPlacing,
) -> list[LabelPlan]:
    """Pairs every label with its slice and checks all headers; no pixel is read.

    Args:
      images: what is labelled.
      labels: structure and where its labels are: a folder, paired by trailing number, or a
        stack or OME-Zarr with as many slices as `images`. Several structures may share one.
      labels_csv: an explicit pairing, see `read_pairing`.
      values: of structures whose files are not binary.
      labelled_slices: of structures whose stack is annotated on these slices only.
      unlabelled: value of pixels of a structure that nobody labelled.
      placing: opens labels and says where they lie in the images.

    Raises:
      InputError: the labels do not fit the images or are ambiguous.
    """

    def rule(name: str) -> MaskRule:
        return MaskRule(name, values.get(name), unlabelled.get(name))

    plans: list[LabelPlan] = []
    for name, path in labels:
        source = placing.open(name, path)
        placement = placing.place(name, source)
        pairs = pair_source(images, source, placement)
        if name in labelled_slices:
            if source.has_files:
                raise InputError(
                    f"--labelled_slices={name}=…: {path} is a folder, whose files say which slices"
                    " are labelled; the flag is for stacks"
                )
            pairs = _only(name, labelled_slices[name], pairs)
        plans.append(LabelPlan(name, source, pairs, rule(name), placement))
    if labels_csv is not None:
        labels_csv = local_path(labels_csv, flag="--labels_csv")
        for name, listed in read_pairing(labels_csv, images.names).items():
            source = open_files(
                labels_csv.parent,
                [local_path(file.name, base=labels_csv.parent) for file in listed],
                names=[file.name for file in listed],
                label=True,
            )
            _check_plane(images, source)
            placing.place(name, source)
            pairs = {file.z: index for index, file in enumerate(listed)}
            plans.append(LabelPlan(name, source, pairs, rule(name)))
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"--labels={name}=…: structure {name!r} is given twice; give every structure once"
            )
    flags: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("label_values", values),
        ("labelled_slices", labelled_slices),
        ("unlabelled_value", unlabelled),
        *placing.named(),
    )
    for flag, given in flags:
        for name in given:
            if name not in names:
                raise InputError(
                    f"--{flag}={name}=…: no structure {name!r}; there are:"
                    f" {', '.join(names) or 'none'}"
                )
    return plans


def pair_source(
    images: SliceSource, source: SliceSource, placement: Placement = EVERYWHERE
) -> dict[int, int]:
    """`{z of the images: slice of the source}` of a label or mask source.

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
    pairs = pair_by_number(image_names, source.names, folder=Path(source.path))
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
            f" numbered from 0 to {max(pairs)}"
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
