"""Sources of slices: folders of TIFF files, TIFF stacks and OME-Zarr images."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import yaozarrs
from natsort import natsorted

from vemseg_jax.data import tiff
from vemseg_jax.data.tiff import VoxelSize
from vemseg_jax.errors import InputError

TIFF_SUFFIXES = (".tif", ".tiff")
# Decoded chunks of an OME-Zarr that are kept, so that thick ones are not read once per slice.
_CACHE_BYTES = 2**30


@dataclass(frozen=True)
class SliceSource:
    """Slices `[z, h, w]` that are read one at a time.

    Attributes:
      path: file or folder.
      shape: zyx.
      dtype: of the values as stored.
      names: file name of every slice, or its z where the source is one file.
      has_files: whether the names are file names.
      voxel_size: nm, zyx, each None where the source does not record it.
      axes: as the source records them, such as "zyx"; None where it does not.
      ignored: entries of the folder that are no TIFF files.
      reader: z to plane.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    names: tuple[str, ...]
    has_files: bool
    voxel_size: VoxelSize
    axes: str | None
    ignored: int
    reader: Callable[[int], np.ndarray]

    def file(self, z: int) -> Path:
        """The file of a slice, for messages and provenance."""
        return self.path / self.names[z] if self.has_files else self.path

    def read(self, z: int) -> np.ndarray:
        """Slice z, `[h, w]`, `dtype`. Safe to call from several threads.

        Raises:
          InputError: it cannot be decoded, or is not what the headers said.
        """
        where = str(self.file(z)) if self.has_files else f"{self.path}, slice {z}"
        try:
            plane = np.asarray(self.reader(z))
        except Exception as error:
            # Every codec has exceptions of its own; all of them mean a damaged file.
            reason = str(error).split("\n")[0][:200]
            raise InputError(
                f"{where}: truncated or damaged, cannot be decoded ({type(error).__name__}:"
                f" {reason}); copy or export it again"
            ) from error
        plane = plane.astype(plane.dtype.newbyteorder("="), copy=False)
        if plane.shape != self.shape[1:] or plane.dtype != self.dtype:
            raise InputError(
                f"{where}: {plane.dtype} {plane.shape} read, {self.dtype} {self.shape[1:]}"
                " announced by its header; export it again"
            )
        return plane


def is_zarr(path: Path) -> bool:
    """Whether a path looks like a Zarr directory."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray"))


def open_source(path: str | Path, *, label: bool = False) -> SliceSource:
    """Opens a source of slices; every header is checked, no pixel is read.

    Args:
      path: folder of TIFF slices, TIFF stack, or OME-Zarr 0.4 or 0.5 (level 0, one channel).
      label: values are labels, of any integer type; otherwise grey values of 8 or 16 bit.

    Raises:
      InputError: it cannot be used, with the file and the reason.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a folder of TIFF slices, a TIFF stack or an"
            " OME-Zarr"
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it")
    if path.is_dir():
        if is_zarr(path):
            return _open_ome_zarr(path, label=label)
        return _open_folder(path, label=label)
    return _open_stack(path, label=label)


def list_tiffs(folder: Path) -> tuple[list[str], int]:
    """TIFF file names in natural order, and how many other entries there are.

    Hidden files, which some systems leave beside images, are not counted.

    Raises:
      InputError: no TIFF files.
    """
    visible = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    names = [
        name
        for name in visible
        if name.lower().endswith(TIFF_SUFFIXES) and not (folder / name).is_dir()
    ]
    if not names:
        found = f"{len(visible)} other files" if visible else "it is empty"
        raise InputError(f"{folder}: no TIFF files ({found}); files ending in .tif are needed")
    return natsorted(names), len(visible) - len(names)


def open_files(
    folder: Path, files: list[Path], *, names: list[str], label: bool, ignored: int = 0
) -> SliceSource:
    """A source of one TIFF file per slice, all headers checked.

    Raises:
      InputError: files of several pages, of different shape or type, or unusable ones.
    """
    first: tiff.TiffHeader | None = None
    for file in files:
        header = tiff.read_header(file, label=label)
        if header.shape[0] != 1:
            raise InputError(
                f"{file}: {header.shape[0]} pages; one slice per file is needed here, a stack is"
                " given by itself"
            )
        if first is None:
            first = header
        elif (header.shape, header.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{file}: {header.dtype} {header.shape[1:]}, but {files[0].name} is"
                f" {first.dtype} {first.shape[1:]}; all slices must have one shape and type"
            )
    assert first is not None
    return SliceSource(
        path=folder,
        shape=(len(files), *first.shape[1:]),
        dtype=first.dtype,
        names=tuple(names),
        has_files=True,
        voxel_size=first.voxel_size,
        axes=None,
        ignored=ignored,
        reader=lambda z: tiff.read_single(files[z]),
    )


def _open_folder(folder: Path, *, label: bool) -> SliceSource:
    names, ignored = list_tiffs(folder)
    files = [folder / name for name in names]
    return open_files(folder, files, names=names, label=label, ignored=ignored)


def _open_stack(path: Path, *, label: bool) -> SliceSource:
    header = tiff.read_header(path, label=label)
    return SliceSource(
        path=path,
        shape=header.shape,
        dtype=header.dtype,
        names=tuple(str(z) for z in range(header.shape[0])),
        has_files=False,
        voxel_size=header.voxel_size,
        axes=header.axes,
        ignored=0,
        reader=tiff.TiffReader(path),
    )


def _ome_image(path: Path) -> tuple[Any, str]:
    """Validated OME metadata of an image, and the driver of its arrays."""
    try:
        if (path / "zarr.json").exists():
            group = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
            attributes = group.get("attributes", {})
            model: Any = yaozarrs.v05.Image.model_validate(attributes["ome"])
            return model, "zarr3"
        attributes = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
        return yaozarrs.v04.Image.model_validate(attributes), "zarr"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            f"{path}: not an OME-Zarr 0.4 or 0.5 image ({reason}); give the directory whose"
            " metadata has multiscales"
        ) from error


def _open_ome_zarr(path: Path, *, label: bool) -> SliceSource:
    model, driver = _ome_image(path)
    multiscale = model.multiscales[0]
    dataset = multiscale.datasets[0]
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": str(path / dataset.path)},
        "context": {"cache_pool": {"total_bytes_limit": _CACHE_BYTES}},
    }
    try:
        array = ts.open(spec, open=True, read=True).result()
        dtype = np.dtype(array.dtype.numpy_dtype)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{path / dataset.path}: array cannot be opened ({error})") from error
    axes = [axis.name.lower() for axis in multiscale.axes]
    if len(axes) != array.rank:
        raise InputError(f"{path}: {array.rank} dimensions, but axes {''.join(axes)} are recorded")
    # Axes beside z, y and x must be of length 1, and are dropped.
    kept = [i for i, name in enumerate(axes) if name in "zyx" or array.shape[i] != 1]
    recorded = "".join(axes[i] for i in kept)
    if recorded != "zyx":
        raise InputError(
            f"{path}: axes {''.join(axes)} of shape {tuple(array.shape)}; zyx is needed, others"
            " only with length 1"
        )
    if label:
        if dtype.kind not in "uib":
            raise InputError(f"{path}: label of type {dtype}; an integer type is needed")
    else:
        tiff.check_image_dtype(path, dtype, dtype.itemsize * 8)
    z, h, w = (int(array.shape[i]) for i in kept)
    sizes = _scale(multiscale, dataset, kept)
    index = [slice(None) if i in kept else 0 for i in range(array.rank)]
    plane = array[tuple(index)]
    return SliceSource(
        path=path,
        shape=(z, h, w),
        dtype=dtype,
        names=tuple(str(i) for i in range(z)),
        has_files=False,
        voxel_size=sizes,
        axes="".join(axes),
        ignored=0,
        reader=lambda z: plane[z].read().result(),
    )


def _scale(multiscale: Any, dataset: Any, kept: list[int]) -> VoxelSize:
    """Voxel size in nm: the scale of level 0 times that of the whole, by the axes' units."""
    scale = np.ones(len(multiscale.axes))
    for transformation in [
        *dataset.coordinateTransformations,
        *(multiscale.coordinateTransformations or ()),
    ]:
        if transformation.type == "scale":
            scale = scale * np.array(transformation.scale, float)
    sizes = [tiff.nanometres(scale[i], multiscale.axes[i].unit) for i in kept]
    return sizes[0], sizes[1], sizes[2]
