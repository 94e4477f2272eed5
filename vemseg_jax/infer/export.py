"""Predictions as TIFF files, a file a slice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from vemseg_jax.data.store.atomic import AtomicDirectory
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.label_writer import PREDICTION
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path
from vemseg_jax.progress import track


def export_tiff(volume_path: Path, names: Sequence[str], output: Path, *, overwrite: bool) -> None:
    """Writes the predicted slices of label images, at the finest level they have.

    Files are `OUTPUT/LABEL/SLICE.tif`, slices numbered from 0 as in the volume; masks are 0 and
    255, probabilities 0 to 255, with the pixel size.

    Args:
      volume_path: the volume.
      names: of label images.
      output: folder for the result.
      overwrite: replace an earlier one.

    Raises:
      InputError: the folder is there already and `overwrite` is not given, or it cannot be written.
    """
    output = local_path(output, flag="--tiff_output")
    check_output(output, overwrite=overwrite)
    volume = open_volume(volume_path)
    digits = len(str(volume.shape[0] - 1))
    directory = AtomicDirectory(output, partial=output.with_name(output.name + ".partial"))
    try:
        for name in names:
            info = volume.label_info(name)
            level = FULL if FULL in info["levels"] else TRAINING
            factor = 1 if level == FULL else volume.downsample
            y, x = (size * factor for size in volume.voxel_size[1:])
            folder = directory.partial / name
            folder.mkdir()
            slices = volume.labelled_slices(name)
            for z, (plane,) in track(
                read_slices([volume.label(name, level)], slices),
                total=len(slices),
                what=f"writing {name}",
                unit="slice",
            ):
                grey = plane * np.uint8(255) if info["kind"] == PREDICTION else plane
                tifffile.imwrite(
                    folder / f"{z:0{digits}d}.tif",
                    grey,
                    compression="zlib",
                    resolution=(1e7 / x, 1e7 / y),  # pixels per cm
                    resolutionunit="CENTIMETER",
                    metadata=None,
                )
        directory.commit()
    except OSError as error:
        directory.abandon()
        raise InputError(
            f"{output}: {reason(error, writing=True)} (the predictions are in the volume)"
        ) from error
    except BaseException:
        directory.abandon()
        raise


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises InputError unless TIFF files may be written to a folder."""
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"--tiff_output={output}: exists already; give --overwrite to replace it")
    if not output.is_dir() or any(
        path.suffix != ".tif" for path in output.rglob("*") if not path.is_dir()
    ):
        raise InputError(
            f"--tiff_output={output}: holds other things than TIFF files and will not be replaced;"
            " choose another folder"
        )
