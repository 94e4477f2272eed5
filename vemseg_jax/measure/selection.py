"""Which labels, slices and scale are measured, and reading them slab by slab."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store.label_names import MASK_SUFFIX
from vemseg_jax.data.store.label_writer import PROBABILITY
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume
from vemseg_jax.errors import InputError

# Bytes held per voxel of a slab and structure (grey labels, mask, ids within the slab and of the
# objects, work space), per pixel and structure of every plane kept back for surfaces, and of what
# is read ahead and at work on a plane.
SLAB_BYTES, KEPT_BYTES, PLANE_BYTES = 16, 4, 20
# More planes at once gain nothing.
MOST_PLANES = 64
# Shorter runs of slices show no whole nucleus.
LEAST_RUN = 5


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is measured.

    Attributes:
      names: the label of nuclei and, if given, of nucleoli.
      level: "training" or "full".
      z_range: slices, half-open.
      plane: `(h, w)` at the level.
      voxel_size: nm, zyx, at the level.
      origin: nm, zyx, of the centre of voxel 0 of the level. The origin is the centre of the
        first voxel at full resolution, as in the volume's own metadata.
      step: pixels of full resolution per pixel of the level, in y and x.
      arrays: one `[z, y, x]` uint8 a name.
    """

    names: tuple[str, ...]
    level: str
    z_range: tuple[int, int]
    plane: tuple[int, int]
    voxel_size: tuple[float, float, float]
    origin: tuple[float, float, float]
    step: int
    arrays: tuple[ts.TensorStore, ...]

    @property
    def voxel_volume(self) -> float:
        """µm³."""
        return float(np.prod(self.voxel_size)) / 1e9

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels zyx of what is measured."""
        return self.z_range[1] - self.z_range[0], *self.plane

    def micrometres(self, index: np.ndarray) -> np.ndarray:
        """Voxel indices `[..., 3]` zyx, z from the first measured slice, to µm, zyx."""
        first = np.array([self.z_range[0], 0, 0])
        return ((index + first) * np.array(self.voxel_size) + np.array(self.origin)) / 1000


def select(
    volume: Volume,
    *,
    nuclei: str,
    nucleoli: str | None = None,
    level: str | None = None,
    z_range: tuple[int, int] | None = None,
) -> Selection:
    """Settles level and slices.

    Raises:
      InputError: a label is missing or lacks the level, or there is no run of slices without a
        gap that all labels cover.
    """
    if nuclei == nucleoli:
        raise InputError(f"--nucleoli={nucleoli}: the same label as --nuclei; name another")
    names = (nuclei,) if nucleoli is None else (nuclei, nucleoli)
    for flag, name in zip(("nuclei", "nucleoli"), names, strict=False):
        if name not in volume.label_names:
            known = ", ".join(volume.label_names) or "none"
            raise InputError(f"--{flag}={name}: {volume.path} has no such label; it has: {known}")
        if volume.label_info(name).get("kind") == PROBABILITY:
            raise InputError(
                f"--{flag}={name}: holds probabilities; give the mask, a label ending in"
                f" {MASK_SUFFIX}"
            )
    if level is None:
        common = all(TRAINING in volume.label_info(name)["levels"] for name in names)
        level = TRAINING if common else FULL
    arrays = tuple(volume.label(name, level) for name in names)
    plane = volume.plane_shape(level)
    step = volume.downsample if level == TRAINING else 1
    dz, dy, dx = volume.voxel_size
    offset = (step - 1) / 2
    return Selection(
        names=names,
        level=level,
        z_range=_slices(volume, names, z_range),
        plane=plane,
        voxel_size=(dz, dy * step, dx * step),
        origin=(0.0, dy * offset, dx * offset),
        step=step,
        arrays=arrays,
    )


def _runs(slices: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open runs of ascending slice numbers."""
    cuts = np.flatnonzero(np.diff(slices) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(np.asarray(slices), cuts)]


def _named(run: tuple[int, int]) -> str:
    return f"{run[0]}:{run[1]}" if run[1] - run[0] > 1 else str(run[0])


def _slices(
    volume: Volume, names: Sequence[str], z_range: tuple[int, int] | None
) -> tuple[int, int]:
    covered = {name: volume.labelled_slices(name) for name in names}
    for name, slices in covered.items():
        if not slices:
            raise InputError(f"{volume.path}: label {name!r} has no slice that is labelled")
    if z_range is not None:
        start, stop = z_range
        if not 0 <= start < stop <= volume.shape[0]:
            raise InputError(
                f"--z_range={start}:{stop}: the volume has slices 0:{volume.shape[0]}; give"
                " START:STOP within them"
            )
        wanted = range(start, stop)
        for name, slices in covered.items():
            missing = sorted(set(wanted) - set(slices))
            if missing:
                raise InputError(
                    f"--z_range={start}:{stop}: label {name!r} of {volume.path} lacks slices"
                    f" {_listed(_runs(missing))}; it has {_listed(_runs(slices))}"
                )
        return start, stop
    shared = sorted(set.intersection(*(set(slices) for slices in covered.values())))
    longest = max(_runs(shared), key=lambda run: run[1] - run[0]) if shared else None
    advice = _advice(volume, names[0], longest)
    for name, slices in covered.items():
        runs = _runs(slices)
        if len(runs) > 1:
            gaps = [(a[1], b[0]) for a, b in itertools.pairwise(runs)]
            raise InputError(
                f"{volume.path}: label {name!r} lacks slices {_listed(gaps)} between those it"
                f" has; {advice}"
            )
    if len(set(covered.values())) > 1:
        have = ", ".join(f"{name!r} has {_listed(_runs(s))}" for name, s in covered.items())
        raise InputError(f"{volume.path}: the labels cover different slices: {have}; {advice}")
    return longest if longest else (0, 0)


def _advice(volume: Volume, nuclei: str, longest: tuple[int, int] | None) -> str:
    """What to do about labels with gaps, whose longest run in common is given."""
    if longest is None:
        return "they have no slice in common; predict the same slices"
    if longest[1] - longest[0] >= LEAST_RUN:
        return (
            f"predict the rest or measure a run without gaps, such as --z_range={longest[0]}:"
            f"{longest[1]}"
        )
    # One drawn slice here and there is no volume to measure.
    what = "objects are measured in slices that follow each other"
    prediction = nuclei + MASK_SUFFIX
    if prediction in volume.label_names:
        return f"{what}; measure the prediction, --nuclei={prediction}"
    return f"{what}; predict all of them with vemseg-predict and measure that label"


def _listed(runs: Sequence[tuple[int, int]]) -> str:
    text = ", ".join(_named(run) for run in runs[:5])
    return text if len(runs) <= 5 else f"{text} and {len(runs) - 5} more stretches"


def planes_per_slab(selection: Selection, budget: int, *, share: float, kept: int) -> int:
    """How many planes are read at once.

    Args:
      selection: what is read.
      budget: bytes in all.
      share: of the budget, for slabs.
      kept: planes kept back for surfaces.

    Raises:
      InputError: not even one fits.
    """
    pixels = selection.plane[0] * selection.plane[1] * len(selection.names)
    fixed = (PLANE_BYTES + (kept + 1) * KEPT_BYTES) * pixels
    planes = (budget * share - fixed) // (SLAB_BYTES * pixels)
    if planes < 1:
        needed = (fixed + SLAB_BYTES * pixels) / share / 2**30
        coarser = ", or measure at --level=training" if selection.level == FULL else ""
        raise InputError(
            f"--memory_gib: slices of {selection.plane[0]} x {selection.plane[1]} pixels take at"
            f" least --memory_gib={math.ceil(needed * 100) / 100:g}, given are"
            f" {budget / 2**30:.2g}{coarser}"
        )
    return int(min(planes, MOST_PLANES, selection.shape[0]))


def read_slabs(selection: Selection, planes: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yields (first slice, counted from the first measured one, one slab `[n, h, w]` an array)."""
    start, stop = selection.z_range
    slices = read_slices(selection.arrays, range(start, stop))
    for first in range(start, stop, planes):
        count = min(planes, stop - first)
        slabs = [np.empty((count, *selection.plane), np.uint8) for _ in selection.arrays]
        for i in range(count):
            _, found = next(slices)
            for slab, plane in zip(slabs, found, strict=True):
                slab[i] = plane
        yield first - start, slabs
