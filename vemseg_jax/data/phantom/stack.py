"""Procedural volume electron microscopy of a tissue, with ground truth for nuclei and nucleoli.

After the breast biopsies of the design: nuclei cover about 20 % of a slice and nucleoli 0.3-1 %,
always inside nuclei. At 4 nm and 6000 x 4000 pixels 20 % in 3-6 profiles of 400-800 pixels across
cannot hold: 6 of 800 pixels are 12.6 %. The cover is kept, so nuclei are about 6000 nm
(1500 pixels at 4 nm) wide.

Nuclei and cytoplasm have the same range of greys, cell by cell, so that no threshold finds nuclei.
Best Dice of nuclei with sigma and threshold chosen by the truth, on slices 4, 12, ..., 44 of the
default 48 x 768 x 1024 field at 4x downsampling (mean over seeds 0-3, and the worst of them):

    preset     threshold      Gaussian (sigma 1-32 pixels), then threshold
    biopsy1    0.36 (0.39)    0.42 (0.47)
    biopsy2    0.39 (0.45)    0.44 (0.50)
    biopsy3    0.34 (0.36)    0.40 (0.44)

Either polarity; all foreground scores 0.33. For nucleoli the same gives at most 0.14 and, after the
Gaussian, 0.20-0.33 on average and 0.51 at worst.

Nothing is stored: a slice is a pure function of the configuration and z. Placement and greys of the
nuclei are chosen among random ones, so that small fields too hold their share; other textures are
noise on lattices in 3D, so they go on smoothly from slice to slice.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from vemseg_jax.data.phantom import texture
from vemseg_jax.data.phantom.paint import Painter
from vemseg_jax.data.phantom.placement import Placement, best_placement
from vemseg_jax.data.phantom.presets import PRESETS, PhantomConfig
from vemseg_jax.data.store.atomic import AtomicDirectory
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path
from vemseg_jax.progress import track

__all__ = ["PRESETS", "Phantom", "PhantomConfig", "PhantomSlice", "write_tiff_stack"]

# Distances are computed on a grid this coarse (nm) and interpolated: they are smooth.
_COARSE = 80.0
_BLOCK_ROWS = 256


class PhantomSlice(NamedTuple):
    """One slice, each `[y, x]` uint8: the image in 0-255 and two masks of 0 and 1."""

    image: np.ndarray
    nuclei: np.ndarray
    nucleoli: np.ndarray


class Phantom:
    """A stack made slice by slice; `slice(z)` depends on the configuration and `z` alone.

    Memory is that of one slice and some blocks of 256 rows, whatever the depth of the stack.
    """

    def __init__(self, config: PhantomConfig) -> None:
        self.config = config
        self.preset = config.tissue
        _, height, width = config.shape
        _, dy, dx = config.voxel_size
        self._fine = texture.PlaneGrid((height, width), (dy, dx), (dy / 2, dx / 2))
        self._step = (max(_COARSE, dy), max(_COARSE, dx))
        nodes = tuple(self._fine.basis(i, self._step[i]).shape[1] for i in (0, 1))
        self._coarse = texture.PlaneGrid(nodes, self._step, (-self._step[0], -self._step[1]))
        self._placement = self._place()

    def _place(self) -> Placement:
        """The nuclei and nucleoli, chosen by six slices spread over the depth."""
        depth = self.config.shape[0] * self.config.voxel_size[0]
        skip = math.ceil(max(self._coarse.shape) / 64)
        planes = [(k + 0.5) / 6 * depth for k in range(6)]
        points = [(z, self._warp(z)[:, ::skip, ::skip]) for z in planes]
        area = math.prod(s * n for s, n in zip(self._step, self._coarse.shape, strict=True))
        return best_placement(self.config, points, area=area, candidates=30)

    def slice(self, z: int) -> PhantomSlice:
        """Slice `z` of the stack, `[y, x]` uint8 each.

        Raises:
          InputError: z outside the stack.
        """
        depth, height, width = self.config.shape
        if not 0 <= z < depth:
            raise InputError(f"phantom slice {z}: the stack has slices 0 to {depth - 1}")
        fields = self._fields((z + 0.5) * self.config.voxel_size[0])
        painter = Painter(self.config, z=z, grid=self._fine, fields=fields, step=self._step)
        result = PhantomSlice(*(np.empty((height, width), np.uint8) for _ in range(3)))
        for top in range(0, height, _BLOCK_ROWS):
            rows = slice(top, min(top + _BLOCK_ROWS, height))
            smooth = {
                name: texture.spread(nodes, self._fine, self._step, rows=rows)
                for name, nodes in fields.items()
            }
            result.image[rows] = painter.paint(smooth, rows)
            result.nuclei[rows] = smooth["nucleus"] < 0
            result.nucleoli[rows] = (smooth["nucleolus"] < 0) & (smooth["nucleus"] < 0)
        return result

    def _fields(self, z: float) -> dict[str, np.ndarray]:
        """Everything smooth, on the coarse grid: distances in nm, grey levels, abundances."""
        preset, placement = self.preset, self._placement
        offset = self._warp(z)
        near = placement.near(z, placement.centre, 1.6 * preset.diameter)
        each = np.stack([placement.nucleus_distance(k, offset) for k in near])
        first, second = np.partition(each, 1, axis=0)[:2]
        share = np.exp((first - each) * np.float32(1 / 60))
        share /= share.sum(0)
        tone = np.tensordot(placement.tone[near].T.astype(np.float32), share, axes=1)
        cell = 0.5 * (second - first)
        nucleus = np.maximum(first, 150 - cell)

        def slow(channel: int, length: float) -> np.ndarray:
            return self._noise(z, channel, (length,) * 3)()

        nucleolus, nucleolus_tone = placement.nucleoli(z, offset)
        nucleolus = nucleolus + preset.nucleolus_wobble * slow(20, 380)
        gap = 260 * texture.ramp(slow(21, 2400) + np.float32(preset.gap - 1.2), 0.0, 1.6)
        fields = {
            "nucleus": nucleus,
            # Interpolation rounds the crease between two cells by a third of the coarse step.
            "cell": cell - 0.4 * max(self._step) - gap,
            # Chromatin always stays between nucleolus and envelope.
            "nucleolus": np.maximum(nucleolus, nucleus + 180),
            "nucleus_grey": texture.between(preset.nucleus_grey, tone[0]) + 7 * slow(22, 1500),
            "cytoplasm_grey": texture.between(preset.cytoplasm_grey, tone[1])
            + preset.cytoplasm_patches * slow(23, 1000),
            "nucleolus_grey": texture.between(preset.nucleolus_grey, nucleolus_tone),
            "reticulum": slow(24, 1500) + 0.8 * tone[3] + (preset.reticulum_share - 0.4),
            "mitochondria": preset.mitochondria + 0.25 * slow(25, 1600) + 0.3 * (tone[2] - 0.5),
            "light": 3.5 * slow(26, 7000),
        }
        return {name: values.astype(np.float32) for name, values in fields.items()}

    def _noise(self, z: float, channel: int, spacing: tuple[float, float, float]) -> texture.Noise:
        return texture.Noise(self._coarse, self.config.stream, z, channel, spacing)

    def _warp(self, z: float) -> np.ndarray:
        """Displaced coordinates zyx of the coarse grid, `[3, y, x]`: no surface is a quadric."""
        y, x = np.meshgrid(self._coarse.axis(0), self._coarse.axis(1), indexing="ij")
        position = np.stack([np.full_like(y, z), y, x])
        for octave, (length, size) in enumerate(
            zip((2600.0, 700.0), self.preset.wobble, strict=True)
        ):
            for axis in range(3):
                noise = self._noise(z, 10 + 3 * octave + axis, (length,) * 3)
                position[axis] += np.float32(size) * noise()
        return position


# Kind of file: (folder, stem).
_FILES = {
    "image": ("images", "slice"),
    "nuclei": ("truth/nuclei", "nuclei"),
    "nucleoli": ("truth/nucleoli", "nucleoli"),
}


def _check_output(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"output {folder} exists already; choose another or give --overwrite")
    if not folder.is_dir() or {p.name for p in folder.iterdir()} - {"images", "truth"}:
        raise InputError(f"output {folder} is not a phantom's folder, so it is not overwritten")


def write_tiff_stack(
    phantom: Phantom, folder: str | Path, *, overwrite: bool = False, progress: bool = False
) -> Path:
    """Writes the phantom as TIFF files, zlib-compressed, one per slice and kind.

    - `folder/images/slice_0000.tif`: the image, uint8
    - `folder/truth/nuclei/nuclei_0000.tif`: uint8, 0 background and 1 nucleus
    - `folder/truth/nucleoli/nucleoli_0000.tif`: uint8, 0 background and 1 nucleolus

    All is written beside `folder` as `<folder>.partial` and renamed at the end, so a run that
    is interrupted leaves nothing that looks whole, and what it would have replaced stays.

    Raises:
      InputError: `folder` exists and `overwrite` is False, or it is not a phantom's.
    """
    folder = local_path(folder, flag="--output")
    _check_output(folder, overwrite)
    depth = phantom.config.shape[0]
    slices: Iterable[int] = range(depth)
    if progress:
        slices = track(slices, total=depth, what="phantom", unit="slice")
    atomic = AtomicDirectory(folder, partial=folder.with_name(folder.name + ".partial"))
    try:
        for sub, _ in _FILES.values():
            (atomic.partial / sub).mkdir(parents=True)
        for z in slices:
            _write_slice(phantom, z, atomic.partial)
    except BaseException:
        atomic.abandon()
        raise
    atomic.commit()
    return folder


def _write_slice(phantom: Phantom, z: int, folder: Path) -> None:
    digits = max(4, len(str(phantom.config.shape[0] - 1)))
    _, dy, dx = phantom.config.voxel_size
    made = phantom.slice(z)
    for field, (sub, stem) in _FILES.items():
        tifffile.imwrite(
            folder / sub / f"{stem}_{z:0{digits}d}.tif",
            getattr(made, field),
            compression="zlib",
            photometric="minisblack",
            resolution=(1e7 / dx, 1e7 / dy),
            resolutionunit="CENTIMETER",
        )
