"""Conversion of a stack of slices and its labels to a volume."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from vemseg_jax.data.convert.empty_slices import LabelContent
from vemseg_jax.data.convert.label_doubts import label_doubt, label_record
from vemseg_jax.data.convert.label_files import (
    LabelPlan,
    count_source,
    dilate_disk,
    pair_source,
    plan_labels,
)
from vemseg_jax.data.convert.label_flags import LabelFlags
from vemseg_jax.data.convert.label_placing import LabelPlacing
from vemseg_jax.data.convert.label_values import Values
from vemseg_jax.data.convert.report import (
    IgnorePlan,
    print_clipped,
    print_images,
    print_label,
    print_pairing,
)
from vemseg_jax.data.convert.rows import check_rows, turn_rows
from vemseg_jax.data.convert.voxel_size import resolve_voxel_size
from vemseg_jax.data.formats.axes import GivenAxes
from vemseg_jax.data.formats.holes import REFUSE, settle_holes
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.data.formats.stores import Location, location
from vemseg_jax.data.formats.tiff.stack import Range
from vemseg_jax.data.store.downsample import FACTOR, downsample_ignore
from vemseg_jax.data.store.in_flight import in_flight
from vemseg_jax.data.store.label_writer import ANNOTATION, check_label_name
from vemseg_jax.data.store.volume import FULL, IGNORE, TRAINING, UNLABELLED, plane_shape
from vemseg_jax.data.store.volume_writer import VolumeWriter, check_output, create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path
from vemseg_jax.progress import track

# The least at the training scale that a network can do anything with.
MIN_SIDE = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class ConvertOptions:
    """How a stack is converted; the flags of `vemseg-convert`.

    Attributes:
      voxel_size: nm, zyx; None where the source records it.
      labels: structure and folder, stack or OME-Zarr with its labels.
      labels_csv: explicit pairing with columns structure, image, label.
      label_values: values of the label files that make up a structure, or "any".
      background_values: values of the label files that are background besides 0, or "others" for
        all that have no other meaning.
      labelled_slices: the slices, counted from 0, that are annotated in a dense label stack.
      unlabelled_slices: "empty" where nobody painted slices without the structure, "none" where
        these show that it is absent; by default doubtful ones are refused. Of this and the other
        values the name "" stands for all structures.
      first_slice: 0 or 1, the number of the first slice in names of label files and in the CSV,
        where numbers count slices; None to tell by the numbers or refuse.
      ignore: mask of pixels to leave out, any value above 0.
      ignore_dilation: radius in full-resolution pixels by which the mask grows, in plane, as a
        disk.
      downsample: 4, or 1 where the data is at the training scale.
      unlabelled_values: value or values of the pixels of a structure that nobody labelled.
      axes: which dimension is which, where the source does not record it; "zyx" to take pages as
        slices whatever the file calls them.
      value_range: grey values that become black and white, of types other than 8 and 16 bit
        unsigned.
      labels_axes: as `axes`, of the labels by structure, `ALL` for those not listed; "ignore" is
        the mask.
      labels_offset: the voxel of the images, zyx, on which the first voxel of a label stack lies,
        by structure likewise; whatever the files record.
      trust_flag: `voxel_size` and `axes` win where the source records something else.
      missing_chunks: "refuse" a source that seems to have lost chunks, or "fill" them.
      mrc_bytes: what bytes of MRC files mean, of `MRC_BYTES`; None to tell by the file.
      flip_y: sources whose rows are turned over, see `turn_rows`.
      overwrite: replace an earlier volume when the new one is complete.
    """

    voxel_size: tuple[float, float, float] | None = None
    labels: Sequence[tuple[str, Location]] = ()
    labels_csv: Path | None = None
    label_values: Mapping[str, Values] = field(default_factory=dict)
    background_values: Mapping[str, Values] = field(default_factory=dict)
    labelled_slices: Mapping[str, Sequence[int]] = field(default_factory=dict)
    unlabelled_slices: Mapping[str, str] = field(default_factory=dict)
    unlabelled_values: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    first_slice: int | None = None
    ignore: Location | None = None
    ignore_dilation: int = 0
    downsample: int = 4
    axes: str | None = None
    value_range: Range = None
    labels_axes: Mapping[str, str] = field(default_factory=dict)
    labels_offset: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    trust_flag: bool = False
    missing_chunks: str = REFUSE
    mrc_bytes: str | None = None
    flip_y: Sequence[str] = ()
    overwrite: bool = False

    @property
    def label_flags(self) -> LabelFlags:
        """What is said about labels."""
        return LabelFlags(
            values=self.label_values,
            background=self.background_values,
            unlabelled=self.unlabelled_values,
            labelled_slices=self.labelled_slices,
            unlabelled_slices=self.unlabelled_slices,
            first_slice=self.first_slice,
        )


def convert(images: Location, output: str | Path, options: ConvertOptions) -> Path:
    """Converts slices, labels and ignore mask to a volume; prints what was understood.

    Everything that headers tell is checked before anything is written, labels are converted
    before images, and the volume appears at `output` only when it is complete.

    Args:
      images: of any format, see `open_source`.
      output: the OME-Zarr directory to make.
      options: everything else.

    Returns:
      The path of the volume.

    Raises:
      InputError: anything in the input that cannot be used or is ambiguous.
    """
    images, output = location(images), local_path(output, flag="--output")
    check_output(output, overwrite=options.overwrite)
    axes = GivenAxes(options.axes, trusted=options.trust_flag)
    source = open_source(
        images, axes=axes, value_range=options.value_range, mrc_bytes=options.mrc_bytes
    )
    _check_apart(output, source.path)
    if source.axes_from is None:
        raise InputError(
            f"{source.path}: its axes are recorded as {source.axes}; give --axes=zyx if its pages"
            " are slices"
        )
    voxel_size, origin = resolve_voxel_size(
        source, options.voxel_size, trust_flag=options.trust_flag
    )
    _check_size(source, options.downsample)
    print_images(source, voxel_size=voxel_size, origin=origin)
    placing = LabelPlacing(
        source,
        voxel_size,
        axes=options.axes,
        labels_axes=options.labels_axes,
        offsets=options.labels_offset,
        trust_flag=options.trust_flag,
        mrc_bytes=options.mrc_bytes,
    )
    plans = plan_labels(
        source,
        labels=options.labels,
        labels_csv=options.labels_csv,
        flags=options.label_flags,
        placing=placing,
    )
    for plan in plans:
        check_label_name(plan.name, ANNOTATION)
    ignore = _plan_ignore(placing, options)
    if options.first_slice is not None and not any(p.counted for p in (*plans, ignore) if p):
        raise InputError(
            f"--first_slice={options.first_slice}: nothing counts slices here, as files pair by"
            " their names and stacks slice by slice; leave the flag out"
        )
    source, plans, ignore = _settle(source, plans, ignore, options)
    print_pairing(source, plans, ignore, dilation=options.ignore_dilation)
    with create_volume(
        output,
        shape=source.shape,
        dtype=source.dtype,
        voxel_size=voxel_size,
        downsample=options.downsample,
        overwrite=options.overwrite,
        slice_names=source.names,
        source=str(images),
        attributes=_origins(source, origin, options.flip_y),
    ) as writer:
        if writer.removed_stale:
            print(f"removed what an interrupted conversion left beside {output}")
        doubts = [doubt for plan in plans if (doubt := _write_label(writer, plan))]
        if doubts:
            raise InputError("; ".join(doubts))
        if ignore is not None:
            _write_ignore(writer, ignore, options)
        _run(lambda z: writer.write(z, source.read(z)), range(source.shape[0]), what="slices")
    print_clipped(source)
    return output


def _settle(
    images: SliceSource, plans: list[LabelPlan], ignore: IgnorePlan | None, options: ConvertOptions
) -> tuple[SliceSource, list[LabelPlan], IgnorePlan | None]:
    """The sources as they are read: which row is the top one, and whether any part is missing."""
    others = {plan.name: plan.source for plan in plans}
    if ignore is not None:
        others[IGNORE] = ignore.source
    missing = options.missing_chunks
    images = settle_holes(images, missing_chunks=missing, label=False)
    settled: dict[int, SliceSource] = {}
    for source in others.values():
        settled[id(source)] = settle_holes(source, missing_chunks=missing, label=True)
    others = {name: settled[id(source)] for name, source in others.items()}
    plans = [replace(plan, source=others[plan.name]) for plan in plans]
    lines = check_rows(images, plans, others.get(IGNORE), options.flip_y)
    images, others = turn_rows(images, others, options.flip_y)
    print("".join(f"{line}\n" for line in lines), end="")
    plans = [replace(plan, source=others[plan.name]) for plan in plans]
    return images, plans, ignore and replace(ignore, source=others[IGNORE])


def _origins(source: SliceSource, voxel_size_from: str, flip_y: Sequence[str]) -> dict[str, object]:
    """What the volume keeps of where its axes, voxel size and grey values come from."""
    kept: dict[str, object] = {
        "axes": "zyx",
        "axes_from": source.axes_from,
        "voxel_size_from": voxel_size_from,
    }
    if source.offset is not None and all(map(math.isfinite, source.offset)):
        kept["source_offset_voxels"] = list(source.offset)
    if source.value_range is not None:
        kept["value_range"] = [source.value_range.low, source.value_range.high]
        kept["stored_dtype"] = str(source.stored_dtype)
    if flip_y:
        kept["flip_y"] = list(flip_y)
    return kept


def _check_apart(output: Path, path: Location) -> None:
    if isinstance(path, Path) and output.resolve() == path.resolve():
        raise InputError(f"{output}: is also the source; choose another output")


def _check_size(source: SliceSource, downsample: int) -> None:
    if min(plane_shape(source.shape, TRAINING, downsample)) < MIN_SIDE:
        least = MIN_SIDE if downsample == 1 else MIN_SIDE * FACTOR - 1
        raise InputError(
            f"{source.path}: slices of {source.shape[1]} x {source.shape[2]} pixels are too small;"
            f" at least {least} along each side with --downsample={downsample}"
        )


def _plan_ignore(placing: LabelPlacing, options: ConvertOptions) -> IgnorePlan | None:
    if options.ignore is None:
        if options.ignore_dilation:
            raise InputError(f"--ignore_dilation={options.ignore_dilation}: needs --ignore")
        for flag in ("labels_axes", "labels_offset"):
            if IGNORE in getattr(options, flag):
                raise InputError(f"--{flag}={IGNORE}=…: needs --ignore")
        return None
    source = placing.open(IGNORE, options.ignore)
    placement = placing.place(IGNORE, source)
    count = count_source(placing.images, source, options.first_slice)
    pairs = pair_source(placing.images, source, placement, first=count.first if count else 0)
    return IgnorePlan(source, pairs, placement, count.text if count else None)


def _write_label(writer: VolumeWriter, plan: LabelPlan) -> str | None:
    """Writes the labels of a structure; returns why they cannot be used, None where they can."""
    content = LabelContent()
    attributes: dict[str, object] = {"source": str(plan.origin)}
    if plan.source.has_files:
        attributes["files"] = {str(z): plan.file(z) for z in plan.pairs}
    if plan.placement.shape is not None:
        attributes["offset_voxels"] = list(plan.placement.offset)
    with writer.create_label(plan.name, attributes=attributes) as label:

        def copy(z: int) -> None:
            mask = plan.read(z)
            known = int((mask != UNLABELLED).sum())
            if known and (content.add(z, mask == 1, known=known) or plan.keeps_empty):
                label.write_mask(z, mask)

        _run(copy, plan.pairs, what=f"labels of {plan.name}")
        label.attributes |= label_record(plan)
    doubt = label_doubt(plan, content)
    if doubt is None:
        print_label(plan, content)
    return doubt


def _write_ignore(writer: VolumeWriter, plan: IgnorePlan, options: ConvertOptions) -> None:
    source, ignored, pixels = plan.source, [], []
    attributes = {"source": str(source.path), "dilation": options.ignore_dilation}
    with writer.create_label(IGNORE, kind=IGNORE, attributes=attributes) as label:

        def copy(z: int) -> None:
            mask = plan.placement.lay(source.read(plan.pairs[z]) != 0, fill=0)
            mask = dilate_disk(mask, options.ignore_dilation)
            pixels.append(mask.size)
            ignored.append(int(mask.sum()))
            if not ignored[-1]:
                return
            label.write(z, FULL, mask)
            if options.downsample != 1:
                label.write(z, TRAINING, downsample_ignore(mask))

        _run(copy, plan.pairs, what="ignore mask")
    share = sum(ignored) / sum(pixels)
    print(f"ignore: {100 * share:.3g} % of the pixels of {len(ignored)} slices")


def _run(function: Callable[[Item], None], items: Iterable[Item], *, what: str) -> None:
    items = list(items)
    for _ in track(in_flight(function, items), total=len(items), what=what, unit="slice"):
        pass
