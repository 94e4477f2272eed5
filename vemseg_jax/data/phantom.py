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

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from vemseg_jax.data import phantom_texture as texture
from vemseg_jax.data.atomic import AtomicDirectory
from vemseg_jax.errors import InputError
from vemseg_jax.progress import track

# Distances are computed on a grid this coarse (nm) and interpolated: they are smooth.
_COARSE = 80.0
_BLOCK_ROWS = 256
_FAR = 3000.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """One biopsy. Lengths in nm, greys in 0-255 (resin is light), fractions in 0-1."""

    diameter: float = 6000.0  # of a nucleus
    elongation: float = 0.16  # relative spread of the semi-axes
    wobble: tuple[float, float] = (260.0, 50.0)  # displacement of surfaces, coarse and fine
    notch: float = 0.3  # share of nuclei with a deep indentation
    nucleoli: tuple[int, int] = (1, 2)  # per nucleus, inclusive
    nucleolus_radius: tuple[float, float] = (760.0, 960.0)
    nucleolus_stretch: float = 0.12
    nucleolus_wobble: float = 70.0
    nucleolus_grey: tuple[float, float] = (90.0, 106.0)
    nucleolus_patches: float = 12.0  # grey levels of its texture
    vacuoles: float = 0.0  # how readily a nucleolus has light holes
    nucleus_grey: tuple[float, float] = (150.0, 182.0)  # euchromatin, varies by nucleus
    chromatin_depth: float = 62.0  # heterochromatin is this much darker
    chromatin_level: float = 0.75  # the higher, the less heterochromatin
    chromatin_size: float = 340.0
    cytoplasm_grey: tuple[float, float] = (128.0, 188.0)  # varies by cell
    cytoplasm_patches: float = 8.0  # slow variation within a cell
    granules: float = 15.0
    reticulum: float = 44.0  # how dark its membranes are
    reticulum_share: float = 0.0  # the higher, the more of the cytoplasm holds reticulum
    mitochondria: float = 0.62  # the higher, the more
    mitochondrion_grey: tuple[float, float] = (88.0, 118.0)
    vesicles: float = 0.45
    gap: float = 0.0  # the higher, the more extracellular space
    noise: float = 9.0  # standard deviation of the shot noise at grey 150
    curtains: float = 3.0
    drift: float = 4.0  # brightness from slice to slice
    contrast: float = 1.0


PRESETS: dict[str, Preset] = {
    "biopsy1": Preset(),
    "biopsy2": Preset(
        diameter=6200.0,
        elongation=0.22,
        wobble=(380.0, 75.0),
        notch=0.7,
        nucleolus_radius=(760.0, 1060.0),
        nucleolus_grey=(78.0, 96.0),
        nucleus_grey=(126.0, 176.0),
        chromatin_depth=56.0,
        chromatin_level=0.45,
        chromatin_size=430.0,
        cytoplasm_grey=(114.0, 194.0),
        granules=18.0,
        reticulum=52.0,
        reticulum_share=0.7,
        mitochondria=0.52,
        gap=0.5,
        noise=12.0,
        curtains=2.0,
        drift=6.0,
        contrast=0.88,
    ),
    "biopsy3": Preset(
        diameter=6000.0,
        elongation=0.18,
        wobble=(300.0, 60.0),
        notch=0.45,
        nucleoli=(1, 4),
        nucleolus_radius=(420.0, 940.0),
        nucleolus_stretch=0.3,
        nucleolus_wobble=130.0,
        nucleolus_grey=(82.0, 122.0),
        nucleolus_patches=20.0,
        vacuoles=1.0,
        nucleus_grey=(148.0, 190.0),
        chromatin_depth=60.0,
        chromatin_level=0.95,
        chromatin_size=280.0,
        cytoplasm_grey=(130.0, 196.0),
        cytoplasm_patches=9.0,
        reticulum_share=-0.3,
        mitochondria=0.72,
        mitochondrion_grey=(84.0, 112.0),
        vesicles=0.6,
        gap=0.25,
        noise=8.0,
        curtains=4.5,
        drift=5.0,
        contrast=1.08,
    ),
}


@dataclasses.dataclass(frozen=True)
class PhantomConfig:
    """What to make: `preset`, `shape` in voxels zyx, `voxel_size` in nm zyx, and the seed.

    Raises:
      InputError: unknown preset, sizes that are not positive, a seed outside [0, 2**32).
    """

    preset: str = "biopsy1"
    shape: tuple[int, int, int] = (48, 768, 1024)
    voxel_size: tuple[float, float, float] = (40.0, 16.0, 16.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(
                f"phantom preset {self.preset!r} is unknown; choose from: {', '.join(PRESETS)}"
            )
        if len(self.shape) != 3 or any(int(n) != n or n < 1 for n in self.shape):
            raise InputError(
                f"phantom shape {self.shape}: need three positive whole numbers, z,y,x"
            )
        if len(self.voxel_size) != 3 or not all(0 < s < math.inf for s in self.voxel_size):
            raise InputError(
                f"phantom voxel_size {self.voxel_size}: need three positive numbers of nm, z,y,x"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"phantom seed {self.seed}: need a whole number from 0 to 2**32 - 1")

    @property
    def stream(self) -> int:
        """The key of all random numbers: presets share no tissue, even at the same seed."""
        return self.seed + (list(PRESETS).index(self.preset) << 32)


class PhantomSlice(NamedTuple):
    """One slice, each `[y, x]` uint8: the image in 0-255 and two masks of 0 and 1."""

    image: np.ndarray
    nuclei: np.ndarray
    nucleoli: np.ndarray


@dataclasses.dataclass
class _Placement:
    """Nuclei and nucleoli as ellipsoids: |shape @ (p - centre)| < 1, zyx in nm."""

    centre: np.ndarray  # [n, 3]
    shape: np.ndarray  # [n, 3, 3]
    size: np.ndarray  # [n] mean semi-axis
    notch: np.ndarray  # [n, 4] centre and radius of the sphere cut out
    tone: np.ndarray  # [n, 4] uniform in 0-1, one set per cell
    nucleolus_centre: np.ndarray  # [m, 3]
    nucleolus_shape: np.ndarray  # [m, 3, 3]
    nucleolus_size: np.ndarray  # [m]
    nucleolus_tone: np.ndarray  # [m]

    def nucleus_distance(self, k: int, position: np.ndarray) -> np.ndarray:
        """Distance in nm from nucleus `k`, negative inside; position `[3, ...]` zyx."""
        distance = _distance(_offset(position, self.centre[k]), self.shape[k])
        radius = self.notch[k, 3]
        if radius > 0:
            away = np.sqrt(np.square(_offset(position, self.notch[k, :3])).sum(0))
            # A smooth maximum: the lips of the indentation are round.
            rest = np.float32(radius) - away
            distance = np.maximum(distance, rest) + 60 * np.exp(-np.abs(distance - rest) / 150)
        return distance

    def nucleoli(self, z: float, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the nearest nucleolus and its tone in 0-1; position `[3, ...]` near z."""
        best = np.full(position.shape[1:], _FAR, np.float32)
        tone = np.zeros_like(best)
        for k in self.near(z, self.nucleolus_centre, 2 * self.nucleolus_size + 1600):
            offset = _offset(position, self.nucleolus_centre[k])
            distance = _distance(offset, self.nucleolus_shape[k])
            tone = np.where(distance < best, np.float32(self.nucleolus_tone[k]), tone)
            best = np.minimum(best, distance)
        return best, tone

    @staticmethod
    def near(z: float, centre: np.ndarray, reach: float | np.ndarray) -> np.ndarray:
        """Which centres lie within `reach` nm of the slice at `z`."""
        return np.flatnonzero(np.abs(centre[:, 0] - z) < reach)

    def cover(self, z: float, position: np.ndarray) -> tuple[float, float]:
        """Share of nuclei and of nucleoli among the points `position: [3, ...]`."""
        inside = np.zeros(position.shape[1:], bool)
        for k in self.near(z, self.centre, 1.8 * self.size + 400):
            inside |= self.nucleus_distance(k, position) < 0
        return float(inside.mean()), float((self.nucleoli(z, position)[0] < 0).mean())


def _offset(position: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return position - centre.astype(np.float32).reshape(3, *[1] * (position.ndim - 1))


def _ellipsoids(
    rng: np.random.Generator, size: np.ndarray, stretch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices to the unit sphere `[n, 3, 3]`, and semi-axes `[n, 3]`, at constant volume."""
    logs = np.clip(rng.standard_normal((len(size), 3)), -1.6, 1.6) * stretch
    axes = size[:, None] * np.exp(logs - logs.mean(axis=1, keepdims=True))
    return texture.rotations(rng, len(size)) / axes[:, :, None], axes


def _distance(offset: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Distance in nm (first order) from an ellipsoid, negative inside; offset `[3, ...]`."""
    shape = shape.astype(np.float32)
    unit = np.tensordot(shape, offset, axes=1)
    rho = np.sqrt(np.square(unit).sum(0)) + np.float32(1e-6)
    slope = np.sqrt(np.square(np.tensordot(shape.T, unit, axes=1)).sum(0)) + np.float32(1e-9)
    return rho * (rho - 1) / slope


def _place(config: PhantomConfig, rng: np.random.Generator) -> _Placement:
    """One jittered lattice of nuclei: columns along z, neighbours out of step by a half.

    With columns 1.5 diameters apart and nuclei 1.2 diameters apart within each, nuclei fill
    about a fifth of the volume, and almost every column shows a nucleus in every slice.
    """
    preset = PRESETS[config.preset]
    extent = np.array(config.shape) * np.array(config.voxel_size)
    d = preset.diameter
    pitch = d * np.array([1.2, 1.47, 1.47])
    low, count = -1.2 * pitch, np.ceil(extent / pitch).astype(int) + 4
    cells = np.stack(np.meshgrid(*map(np.arange, count), indexing="ij"), -1).reshape(-1, 3)
    place = cells.astype(np.float64)
    place[:, 0] += np.mod(0.5 * cells[:, 1] + 0.37 * cells[:, 2], 1.0)
    place[:, 2] += 0.5 * (cells[:, 1] % 2)
    jitter = rng.uniform(-1, 1, place.shape) * np.array([0.05, 0.1, 0.1])
    phase = rng.uniform(-1, 0, 3)
    centre = (place + jitter + phase) * pitch + low
    n = len(centre)
    shape, axes = _ellipsoids(rng, 0.5 * d * rng.uniform(0.93, 1.06, n), preset.elongation)
    size = axes.mean(axis=1)

    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    cut = np.where(rng.random(n) < preset.notch, rng.uniform(0.3, 0.5, n), 0.0) * size
    notch = np.concatenate([centre + direction * 1.12 * size[:, None], cut[:, None]], axis=1)

    # The first nucleolus sits near the middle, the others around it, so that they stay apart.
    per = rng.integers(preset.nucleoli[0], preset.nucleoli[1], n, endpoint=True)
    owner = np.repeat(np.arange(n), per)
    rank = np.concatenate([np.arange(k) for k in per])
    m = len(owner)
    lean = rng.standard_normal((m, 3))
    lean /= np.linalg.norm(lean, axis=1, keepdims=True)
    lean[rank % 2 == 1] = -np.roll(lean, 1, axis=0)[rank % 2 == 1]
    out = rng.uniform(0.3, 0.5, m)[:, None]
    inner = np.einsum("mij,mj->mi", np.linalg.inv(shape[owner]), lean * out)
    low_r, high_r = preset.nucleolus_radius
    radius = rng.uniform(low_r, high_r, m) * np.where(rank > 1, 0.6, np.where(rank > 0, 0.8, 1.0))
    nucleolus_shape, _ = _ellipsoids(rng, radius, preset.nucleolus_stretch)
    return _Placement(
        centre,
        shape,
        size,
        notch,
        rng.random((n, 4)),
        centre[owner] + inner,
        nucleolus_shape,
        radius,
        rng.random(m),
    )


def _threshold_dice(grey: np.ndarray, inside: np.ndarray) -> float:
    """Best Dice of `inside` that any threshold on `grey`, of either polarity, reaches."""
    best = 0.0
    for level in np.linspace(float(grey.min()), float(grey.max()), 24):
        for found in (grey >= level, grey <= level):
            best = max(best, 2 * float((found & inside).sum()) / float(found.sum() + inside.sum()))
    return best


class Phantom:
    """A stack made slice by slice; `slice(z)` depends on the configuration and `z` alone.

    Memory is that of one slice and some blocks of 256 rows, whatever the depth of the stack.
    """

    def __init__(self, config: PhantomConfig) -> None:
        self.config = config
        self.preset = PRESETS[config.preset]
        _, height, width = config.shape
        _, dy, dx = config.voxel_size
        self._fine = texture.PlaneGrid((height, width), (dy, dx), (dy / 2, dx / 2))
        self._step = (max(_COARSE, dy), max(_COARSE, dx))
        nodes = tuple(self._fine.basis(i, self._step[i]).shape[1] for i in (0, 1))
        self._coarse = texture.PlaneGrid(nodes, self._step, (-self._step[0], -self._step[1]))
        self._placement = self._best_placement(candidates=30, levels=6)

    def _best_placement(self, *, candidates: int, levels: int) -> _Placement:
        """The candidate whose slices come nearest to 20 % nuclei and 0.6 % nucleoli.

        A field a few nuclei wide would by chance hold half or twice its share; the breast
        biopsies do not. Fields of many nuclei need no choice, so they get fewer candidates.
        """
        depth = self.config.shape[0] * self.config.voxel_size[0]
        planes = [(k + 0.5) / levels * depth for k in range(levels)]
        skip = math.ceil(max(self._coarse.shape) / 64)
        points = [(z, self._warp(z)[:, ::skip, ::skip]) for z in planes]
        area = math.prod(s * n for s, n in zip(self._step, self._coarse.shape, strict=True))
        columns = area / self.preset.diameter**2
        best, best_score = None, math.inf
        for index in range(max(1, min(candidates, int(40 * candidates / columns)))):
            placement = _place(self.config, texture.generator(self.config.stream, 0, index))
            nuclei, nucleoli = np.array([placement.cover(*p) for p in points]).T
            score = float(np.abs(nuclei - 0.2).max()) / 0.04 + abs(nuclei.mean() - 0.2) / 0.015
            score += abs(nucleoli.mean() - 0.006) / 0.0015
            score += (np.maximum(0.003 - nucleoli, 0) / 0.003).mean() * 4
            score += (np.maximum(nucleoli - 0.01, 0) / 0.003).mean() * 2
            if score < best_score:
                best, best_score = placement, score
        assert best is not None
        best.tone = self._best_tones(best, points)
        return best

    def _best_tones(
        self, placement: _Placement, points: list[tuple[float, np.ndarray]]
    ) -> np.ndarray:
        """Of 16 sets of greys for the cells, `[n, 4]`, the one a threshold separates least.

        A field of four cells would now and then have dark nuclei in light cytoplasm only.
        """
        owners, insides = [], []
        for z, position in points:
            near = placement.near(z, placement.centre, 2 * self.preset.diameter)
            each = np.stack([placement.nucleus_distance(k, position) for k in near])
            owners.append(near[each.argmin(axis=0)].ravel())
            insides.append(each.min(axis=0).ravel() < 0)
        owner, inside = np.concatenate(owners), np.concatenate(insides)
        # Reticulum and ribosomes darken cytoplasm by more than heterochromatin does nuclei.
        darker = 8 + 10 * max(self.preset.reticulum_share, 0.0)
        best, best_score = placement.tone, math.inf
        for index in range(16):
            tone = texture.generator(self.config.stream, 5, index).random(placement.tone.shape)
            nuclei = _between(self.preset.nucleus_grey, tone[owner, 0])
            cytoplasm = _between(self.preset.cytoplasm_grey, tone[owner, 1]) - darker
            score = _threshold_dice(np.where(inside, nuclei, cytoplasm), inside)
            if score < best_score:
                best, best_score = tone, score
        return best

    def slice(self, z: int) -> PhantomSlice:
        """Slice `z` of the stack, `[y, x]` uint8 each.

        Raises:
          InputError: z outside the stack.
        """
        depth, height, width = self.config.shape
        if not 0 <= z < depth:
            raise InputError(f"phantom slice {z}: the stack has slices 0 to {depth - 1}")
        fields = self._fields((z + 0.5) * self.config.voxel_size[0])
        painter = texture.Painter(
            self.preset, self.config, z=z, grid=self._fine, fields=fields, step=self._step
        )
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
            "nucleus_grey": _between(preset.nucleus_grey, tone[0]) + 7 * slow(22, 1500),
            "cytoplasm_grey": _between(preset.cytoplasm_grey, tone[1])
            + preset.cytoplasm_patches * slow(23, 1000),
            "nucleolus_grey": _between(preset.nucleolus_grey, nucleolus_tone),
            "reticulum": slow(24, 1500) + 0.8 * tone[3] + (preset.reticulum_share - 0.4),
            "mitochondria": preset.mitochondria + 0.25 * slow(25, 1600) + 0.3 * (tone[2] - 0.5),
            "light": 3.5 * slow(26, 7000),
        }
        return {name: values.astype(np.float32) for name, values in fields.items()}

    def _noise(self, z: float, channel: int, spacing: tuple[float, float, float]) -> Any:
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


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return np.float32(limits[0]) + np.float32(limits[1] - limits[0]) * share


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
    folder = Path(folder)
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
