"""Which row of a source is the top one, where formats and programs disagree about it.

MRC counts rows from the bottom: IMOD shows its first row lowest. Fiji's Bio-Formats and programs
that read the file as an array show it highest. So what was drawn on an MRC file in another program
and saved in another format may lie upside down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import tensorstore as ts

from vemseg_jax.data.convert.label_files import LabelPlan
from vemseg_jax.data.convert.pairing_fit import MIRROR_GAIN, PairingFit
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.errors import InputError

# Labelled slices that are compared with the images, at most.
_COMPARED = 8
IMAGES, IGNORE, LABELS, NONE = "images", "ignore", "labels", "none"


def turn_rows(
    images: SliceSource, others: Mapping[str, SliceSource], flip_y: Sequence[str]
) -> tuple[SliceSource, dict[str, SliceSource]]:
    """Turns over the rows of the sources in `flip_y`.

    Args:
      images: the slices.
      others: sources of the structures by name, and that of the ignore mask as "ignore".
      flip_y: "images", "labels" (every structure), "ignore", names of structures; or only "none",
        which says that rows are right as they are.

    Returns:
      The slices and the other sources, as they are to be read.

    Raises:
      InputError: an unknown name.
    """
    structures = [name for name in others if name != IGNORE]
    known = [IMAGES, *([LABELS] if structures else []), *others]
    for name in flip_y:
        if name not in known and tuple(flip_y) != (NONE,):
            raise InputError(
                f"--flip_y={','.join(flip_y)}: {name!r} is none of {', '.join(known)}; give those"
                " whose rows are to be turned over, or only none"
            )
    turned = {
        name: _turn(source) if name in flip_y or (name != IGNORE and LABELS in flip_y) else source
        for name, source in others.items()
    }
    return _turn(images) if IMAGES in flip_y else images, turned


def check_rows(
    images: SliceSource,
    plans: Sequence[LabelPlan],
    ignore: SliceSource | None,
    flip_y: Sequence[str],
) -> list[str]:
    """Lines on which row is taken as the top one; none where no source leaves doubt.

    Args:
      images: the slices, as stored.
      plans: the labels; those of another kind of source than the images are compared with them.
      ignore: the source of the ignore mask.
      flip_y: as given to `turn_rows`.

    Raises:
      InputError: labels clearly fit the images better when they are turned over.
    """
    if flip_y:
        how = "as stored" if tuple(flip_y) == (NONE,) else f"turned over of {', '.join(flip_y)}"
        return [f"rows        {how} (--flip_y)"]
    lines: list[str] = []
    if images.rows_up:
        lines.append(
            "rows        as stored: the first row of the MRC file becomes the top one; IMOD shows"
            " it at the bottom"
        )
    for plan in plans:
        if plan.source.rows_up == images.rows_up:
            continue
        gain = _gain(images, plan)
        if gain is not None and gain > MIRROR_GAIN:
            raise InputError(
                f"{plan.source.path}: {plan.name} fits the images clearly better when its rows are"
                f" turned over; {_kinds(images, plan.name)}: give --flip_y=labels or"
                " --flip_y=images, or --flip_y=none to take rows as stored"
            )
        if gain is not None and gain < -MIRROR_GAIN:
            lines.append(f"rows        of {plan.name} are right as stored: they fit the images so")
        else:
            lines.append(_doubt(images, plan.name, LABELS))
    if ignore is not None and ignore.rows_up != images.rows_up:
        lines.append(_doubt(images, IGNORE, IGNORE))
    return lines


def _gain(images: SliceSource, plan: LabelPlan) -> float | None:
    """By how much labels fit better when turned over; None where that cannot be told."""
    every = list(plan.pairs)
    some = {every[i] for i in np.linspace(0, len(every) - 1, _COMPARED).astype(int)}
    fit = PairingFit(
        {z: np.asarray(images.array[z].read().result(), np.float32) for z in some},
        {z: plan.read(z) == 1 for z in some},
    )
    return fit.fit("top to bottom") - fit.fit() if fit.enough else None


def _kinds(images: SliceSource, name: str) -> str:
    one, other = ("images are", f"{name} is") if images.rows_up else (f"{name} is", "images are")
    return f"{one} MRC, whose first row is the bottom one in IMOD, and {other} not"


def _doubt(images: SliceSource, name: str, flag: str) -> str:
    return (
        f"warning: {_kinds(images, name)}; rows are paired as stored. Where {name} was drawn on"
        f" what IMOD shows or mrc2tif writes, give --flip_y={flag}; --flip_y=none says that rows"
        " are alike (look at the volume with vemseg-view)"
    )


def _turn(source: SliceSource) -> SliceSource:
    array = source.array[:, ::-1][ts.d[:].translate_to[0]]
    return replace(source, array=array, rows_up=not source.rows_up)
