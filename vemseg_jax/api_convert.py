"""`vemseg_jax.convert`; a part of `vemseg_jax.api`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vemseg_jax.errors import check_choice
from vemseg_jax.paths import local_path

StrPath = str | os.PathLike[str]


def convert(
    images: StrPath,
    output: StrPath,
    *,
    voxel_size: tuple[float, float, float] | None = None,
    labels: Mapping[str, StrPath] | None = None,
    labels_csv: StrPath | None = None,
    label_values: Mapping[str, tuple[int, ...] | str] | None = None,
    background_values: Mapping[str, tuple[int, ...] | str] | None = None,
    unlabelled_values: Mapping[str, tuple[int, ...]] | None = None,
    labelled_slices: Mapping[str, Sequence[int]] | None = None,
    unlabelled_slices: Mapping[str, str] | None = None,
    first_slice: int | None = None,
    ignore: StrPath | None = None,
    ignore_dilation: int = 0,
    downsample: int = 4,
    axes: str | None = None,
    labels_axes: Mapping[str, str] | None = None,
    labels_offset: Mapping[str, tuple[int, int, int]] | None = None,
    trust_flag: bool = False,
    value_range: tuple[float, float] | None = None,
    missing_chunks: str = "refuse",
    mrc_bytes: str | None = None,
    flip_y: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Converts a stack of slices and its labels to a volume, as `vemseg-convert`.

    Prints what was understood. The volume appears at `output` when it is complete. Mappings are
    from structure to what is said of it; "" stands for all structures.

    Args:
      images: folder of TIFF or PNG slices, TIFF stack, OME-Zarr, Zarr, N5, precomputed, MRC, Imaris
        or HDF5 with its dataset (`stack.h5/volumes/raw`); an address of gs://, s3:// or https://.
      output: the OME-Zarr directory to make, such as my.zarr.
      voxel_size: nm, (z, y, x); None where the source records it.
      labels: folder of masks or label volume of each structure.
      labels_csv: explicit pairing with the columns structure, image, label.
      label_values: values of label files that are the structure, such as (1, 2), or "any".
      background_values: values that are background as 0 is, or "others".
      unlabelled_values: values of pixels that nobody labelled.
      labelled_slices: the annotated slices of a label volume, counted from 0.
      unlabelled_slices: "empty" where slices that show nothing were not labelled, "none" where they
        are background.
      first_slice: 0 or 1, the number of the first slice in names of label files; None to tell by
        the numbers.
      ignore: mask of pixels to leave out of loss and score.
      ignore_dilation: radius in pixels by which that mask grows.
      downsample: 4 for a training scale that is 4 times smaller, 1 where the data is that coarse.
      axes: which dimension is which, such as "zyx", where the images do not record it.
      labels_axes: likewise, of labels.
      labels_offset: where the first voxel of a label stack lies in the images, (z, y, x).
      trust_flag: take `voxel_size` and `axes` where the files record something else.
      value_range: what becomes black and white of signed integers and floats.
      missing_chunks: "refuse" images that lost chunks, or "fill" them with black.
      mrc_bytes: what bytes of MRC files mean: "signed", "unsigned" or "imod".
      flip_y: whose rows are turned over: "images", "labels", "ignore" or structures.
      overwrite: replace an earlier volume once the new one is complete.

    Returns:
      The path of the volume.

    Raises:
      InputError: input that cannot be used or is ambiguous.
    """
    from vemseg_jax.data.convert.stack import ConvertOptions
    from vemseg_jax.data.convert.stack import convert as convert_
    from vemseg_jax.data.formats.stores import location

    check_choice("downsample", downsample, (4, 1))
    check_choice("first_slice", first_slice, (None, 0, 1))
    check_choice("missing_chunks", missing_chunks, ("refuse", "fill"))
    check_choice("mrc_bytes", mrc_bytes, (None, "signed", "unsigned", "imod"))
    for said in (unlabelled_slices or {}).values():
        check_choice("unlabelled_slices", said, ("empty", "none"))
    return convert_(
        location(os.fspath(images)),
        local_path(output, flag="--output"),
        ConvertOptions(
            voxel_size=voxel_size,
            labels=[(name, location(os.fspath(path))) for name, path in (labels or {}).items()],
            labels_csv=None if labels_csv is None else local_path(labels_csv, flag="--labels_csv"),
            label_values=label_values or {},
            background_values=background_values or {},
            labelled_slices=labelled_slices or {},
            unlabelled_slices=unlabelled_slices or {},
            unlabelled_values=unlabelled_values or {},
            first_slice=first_slice,
            ignore=None if ignore is None else location(os.fspath(ignore)),
            ignore_dilation=ignore_dilation,
            downsample=downsample,
            axes=axes,
            labels_axes=labels_axes or {},
            labels_offset=labels_offset or {},
            trust_flag=trust_flag,
            value_range=value_range,
            missing_chunks=missing_chunks,
            mrc_bytes=mrc_bytes,
            flip_y=flip_y,
            overwrite=overwrite,
        ),
    )
