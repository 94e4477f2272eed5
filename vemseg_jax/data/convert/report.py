"""What a conversion says: how images, labels and ignore mask were understood."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vemseg_jax.data.convert.empty_slices import LabelContent
from vemseg_jax.data.convert.label_doubts import label_warnings
from vemseg_jax.data.convert.label_files import LabelPlan
from vemseg_jax.data.convert.label_placing import Placement
from vemseg_jax.data.convert.pairing import describe_gaps
from vemseg_jax.data.formats.physical_size import lengths
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.data.store.slice_list import slice_list
from vemseg_jax.data.store.volume import IGNORE

PRINTED_PAIRS = 30
CLIPPED_SHARE = 0.01


@dataclass(frozen=True)
class IgnorePlan:
    """The ignore mask: slice z of the volume is slice `pairs[z]` of `source`."""

    source: SliceSource
    pairs: dict[int, int]
    placement: Placement
    counted: str | None = None


def print_images(
    source: SliceSource, *, voxel_size: tuple[float, float, float], origin: str
) -> None:
    """Prints shape, axes and voxel size, and where they come from; missing numbers too."""
    z, h, w = source.shape
    print(f"images      {source.path}: {z} slices of {h} x {w}, {source.stored_dtype}")
    if source.value_range is not None:
        low, high = source.value_range.low, source.value_range.high
        print(f"grey values {low:g} to {high:g} become 0 to {np.iinfo(source.dtype).max}")
    if source.ignored:
        print(f"            {source.ignored} other entries of the folder are not used")
    _print_notes("images", source)
    print(f"axes        zyx ({source.axes_from})")
    print(f"voxel size  {lengths(voxel_size)} nm, z,y,x (from {origin})")
    warning = describe_gaps(source.names) if source.has_files else None
    if warning:
        print(f"warning: {warning}; the slices are stacked as they are")


def print_pairing(
    images: SliceSource,
    plans: Sequence[LabelPlan],
    ignore: IgnorePlan | None,
    *,
    dilation: int,
) -> None:
    """Prints which label belongs to which slice, image and label side by side."""
    if not plans:
        print("labels      none given")
    rows: list[tuple[str, ...]] = [("z", "image", "structure", "label")]
    for plan in plans:
        _print_notes(plan.name, plan.source)
        whole = not plan.source.has_files and plan.placement.shape is None
        every = whole and len(plan.pairs) == images.shape[0]
        number = "every slice" if every else f"{len(plan.pairs)} slices"
        print(f"labels      {plan.name}: {number}, from {plan.origin}")
        _print_placement(plan.source, plan.placement, "the rest is unlabelled")
        if plan.counted:
            print(f"            numbers {plan.counted}")
        if plan.chosen:
            print("            --labelled_slices counts from 0")
        pairs: list[tuple[str, ...]] = [
            (str(z), _image(images, z), plan.name, _label(images, plan, z)) for z in plan.pairs
        ]
        rows += _abridged(pairs, most=2 if every else PRINTED_PAIRS)
    if len(rows) > 1:
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for row in rows:
            columns = [text.ljust(n) for text, n in zip(row, widths, strict=False)]
            print("  " + "  ".join([*columns, row[3]]))
    if ignore is not None:
        _print_notes(IGNORE, ignore.source)
        print(
            f"ignore      {len(ignore.pairs)} slices, from {ignore.source.path}, dilated by"
            f" {dilation} pixels"
        )
        _print_placement(ignore.source, ignore.placement, "nothing is ignored elsewhere")
        if ignore.counted:
            print(f"            numbers {ignore.counted}")


def _print_notes(what: str, source: SliceSource) -> None:
    for note in source.notes:
        print(f"note        {what}: {note}")


def _print_placement(source: SliceSource, placement: Placement, rest: str) -> None:
    if placement.shape is not None:
        print(f"            {placement.describe(source.shape, rest)}")


def _image(images: SliceSource, z: int) -> str:
    return images.names[z] if images.has_files else f"slice {z}"


def _label(images: SliceSource, plan: LabelPlan, z: int) -> str:
    """The label of slice z; of stacks with the number that Fiji shows, where nothing else tells."""
    if plan.source.has_files or images.has_files:
        return plan.file(z)
    return f"{plan.file(z)} (in Fiji {plan.pairs[z] + 1})"


def print_label(plan: LabelPlan, content: LabelContent) -> None:
    """Prints the share of a structure, what values meant, and what became of empty slices."""
    name, empty = plan.name, content.empty
    kept = [z for z in content.pixels if plan.keeps_empty or content.pixels[z]]
    share = sum(content.pixels.values()) / sum(content.known[z] for z in kept)
    print(f"{name}: {100 * share:.3g} % of the labelled pixels of {len(kept)} slices")
    print(f"{name}: {plan.rule.meanings()}")
    if empty:
        what = "count as background" if plan.keeps_empty else "are left unlabelled"
        print(f"{name}: {len(empty)} slices show none of it and {what}: {slice_list(empty)}")
    for warning in label_warnings(plan, content):
        print(f"warning: {warning}")


def print_clipped(source: SliceSource) -> None:
    """Prints how many grey values lay beyond the range; nothing where there is none."""
    if source.value_range is None:
        return
    share = source.value_range.clipped_share
    print(f"grey values {100 * share:.3g} % lay beyond --value_range and were clipped")
    if share > CLIPPED_SHARE:
        print("warning: that is much; see whether the range is right, and convert again")


def _abridged(rows: list[tuple[str, ...]], *, most: int) -> list[tuple[str, ...]]:
    """The rows, or the first and last of a long list; the volume records every pair."""
    if len(rows) <= most:
        return rows
    half = most // 2
    left_out = len(rows) - 2 * half
    return [*rows[:half], ("...", f"{left_out} more", rows[0][2], "..."), *rows[-half:]]
