"""Shifts of all slices of a volume, measured with a few slices in memory."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vemseg_jax.data.preprocess.alignment import Box, Measurement, measure, shared_box, spectrum
from vemseg_jax.data.preprocess.shift_table import (
    CSV_NAME,
    PLOT_NAME,
    SliceShift,
    plot_shifts,
    write_shifts,
)
from vemseg_jax.data.preprocess.slice_shifts import (
    CONSTANT,
    LAGS,
    Estimate,
    Link,
    Tracker,
    keep_trend,
    match,
    solve_positions,
)
from vemseg_jax.data.store.atomic import AtomicDirectory, Journal
from vemseg_jax.data.store.downsample import FACTOR
from vemseg_jax.data.store.in_flight import in_flight
from vemseg_jax.data.store.slices import read_plane
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume
from vemseg_jax.errors import InputError
from vemseg_jax.progress import track

INTEGER, SUBPIXEL = "integer", "subpixel"
SHIFTS = (INTEGER, SUBPIXEL)
AUTO = "auto"
LEVELS = (AUTO, TRAINING, FULL)
# Below so many pixels along a side, too little is in view to measure a quarter of a pixel.
MIN_TRAINING_SIDE = 256
MIN_SIDE = 32
DEFAULT_MAX_SHIFT = 0.1
MIN_SHARED_AREA = 0.25
# A tenth of a pixel is what sub-pixel estimates are good for; rounded, results are easier to read.
DECIMALS = 3


@dataclasses.dataclass(frozen=True)
class AlignOptions:
    """How slices are aligned.

    Attributes:
      shift: "integer" moves whole pixels, "subpixel" interpolates.
      estimate_at: scale at which shifts are measured, "training", "full" or "auto": training where
        its slices have at least 256 pixels along both sides.
      max_shift: the furthest that consecutive slices may lie apart, full-resolution pixels; None
        for a tenth of the shorter side.
      keep_trend: what builds up over more than about so many slices, by less than half a pixel
        from one to the next, is taken for tissue that runs at a slant, and kept; 0 corrects it.
    """

    shift: str = INTEGER
    estimate_at: str = AUTO
    max_shift: float | None = None
    keep_trend: float = 20.0

    def check(self, volume: Volume) -> None:
        """Raises InputError for values that cannot be used, or not with this volume."""
        if self.shift not in SHIFTS:
            raise InputError(f"--shift={self.shift}: one of {', '.join(SHIFTS)}")
        if self.estimate_at not in LEVELS:
            raise InputError(f"--estimate_at={self.estimate_at}: one of {', '.join(LEVELS)}")
        if self.max_shift is not None and not 0 < self.max_shift < float("inf"):
            raise InputError(f"--max_shift={self.max_shift:g}: pixels above 0")
        if not 0 <= self.keep_trend < float("inf"):
            raise InputError(f"--keep_trend={self.keep_trend:g}: a number of slices, or 0")
        if volume.shape[0] < 2:
            raise InputError(
                f"{volume.path}: has one slice; --align needs two or more, leave it out"
            )
        level = self.level(volume)
        h, w = volume.plane_shape(level)
        if min(h, w) < MIN_SIDE:
            raise InputError(
                f"{volume.path}: slices of {h} x {w} pixels at the {level} scale are too small to"
                f" align; at least {MIN_SIDE} along each side, try --estimate_at=full"
            )

    def level(self, volume: Volume) -> str:
        """The scale at which shifts are measured."""
        if self.estimate_at != AUTO:
            return self.estimate_at
        return TRAINING if min(volume.plane_shape(TRAINING)) >= MIN_TRAINING_SIDE else FULL


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How the slices of a volume are moved and cropped.

    Attributes:
      options: that it was made with.
      box: what all slices share.
      shifts: `[z, 2]` y, x, full-resolution pixels, as applied.
      table: everything known, slice by slice.
    """

    options: AlignOptions
    box: Box
    shifts: np.ndarray
    table: tuple[SliceShift, ...]

    def record(self) -> dict[str, Any]:
        """For the attributes of the new volume."""
        return {
            **dataclasses.asdict(self.options),
            "box": self.box._asdict(),
            "shifts": self.shifts.tolist(),
            "flagged_slices": {str(s.z): s.flag for s in self.table if s.flag},
        }


def align(
    volume: Volume, options: AlignOptions, *, directory: AtomicDirectory, folder: str
) -> Alignment:
    """Measures how the slices of a volume must be moved; prints what was found.

    Args:
      volume: to align.
      options: how.
      directory: of the new volume; measurements are kept with it, and go on where they were.
      folder: in `directory`, where table and plot go.

    Raises:
      InputError: no slices match, or they share less than a quarter of a slice.
    """
    level = options.level(volume)
    scale = FACTOR if level == TRAINING and volume.downsample != 1 else 1
    largest = options.max_shift or DEFAULT_MAX_SHIFT * min(volume.shape[1:])
    print(f"alignment   measured at the {level} scale, at most {largest:g} pixels a slice")
    journal = Journal(directory.notes / "estimates.jsonl")
    try:
        estimates = _estimate(volume, level, journal, max_shift=largest / scale)
    finally:
        journal.close()
    try:
        positions, flags = solve_positions(estimates)
    except ValueError:
        raise InputError(
            f"{volume.path}: no two slices match within --max_shift={largest:g} pixels; give a"
            " larger one if the slices lie further apart"
        ) from None
    measured = scale * positions
    if options.keep_trend:
        placed = np.array([not flag for flag in flags])
        measured = keep_trend(measured, placed, options.keep_trend)
    shifts = np.round(measured, 0 if options.shift == INTEGER else DECIMALS)
    shifts += 0.0  # makes 0 of -0
    table = tuple(
        SliceShift(
            z=z,
            name=volume.slice_names[z],
            dy=float(shifts[z, 0]),
            dx=float(shifts[z, 1]),
            measured_dy=float(measured[z, 0]),
            measured_dx=float(measured[z, 1]),
            quality=estimates[z].quality,
            flag=flags[z],
        )
        for z in range(volume.shape[0])
    )
    (directory.partial / folder).mkdir(exist_ok=True)
    write_shifts(directory.partial / folder / CSV_NAME, table)
    plot_shifts(directory.partial / folder / PLOT_NAME, table)
    _print(table)
    box = shared_box(shifts, volume.shape[1:])
    _check_box(volume, box, shifts, table=directory.partial / folder / CSV_NAME)
    print(f"crop        {box.height} x {box.width} of {volume.shape[1]} x {volume.shape[2]} pixels")
    return Alignment(options, box, shifts, table)


def _estimate(volume: Volume, level: str, journal: Journal, *, max_shift: float) -> list[Estimate]:
    array, depth = volume.image(level), volume.shape[0]
    tracker = Tracker()
    estimates = [_from_json(entry) for entry in journal.entries]
    for estimate in estimates:
        tracker.add(estimate)
    if estimates:
        print(f"alignment   {len(estimates)} of {depth} slices are measured already")

    def transform(z: int) -> tuple[int, np.ndarray | None]:
        return z, spectrum(read_plane(array, z))

    if len(estimates) == depth:
        return estimates
    spectra = {z: found for z, found in map(transform, sorted(tracker.kept())) if found is not None}
    todo = range(len(estimates), depth)
    with ThreadPoolExecutor(len(LAGS)) as pool:
        ready = in_flight(transform, todo)
        for z, found in track(ready, total=len(todo), what="alignment", unit="slice"):
            if found is None:
                estimate = Estimate(z, flag=CONSTANT)
            else:
                compare = _comparison(spectra, found, pool)
                estimate = match(z, tracker.candidates(), compare, max_shift=max_shift)
                spectra[z] = found
            tracker.add(estimate)
            spectra = {k: spectra[k] for k in tracker.kept()}
            journal.add(_to_json(estimate))
            estimates.append(estimate)
    return estimates


def _comparison(
    spectra: dict[int, np.ndarray], moving: np.ndarray, pool: ThreadPoolExecutor
) -> Callable[[Sequence[int]], list[Measurement]]:
    def compare(references: Sequence[int]) -> list[Measurement]:
        return list(pool.map(lambda r: measure(spectra[r], moving), references))

    return compare


def _to_json(estimate: Estimate) -> list[Any]:
    return [estimate.z, [list(link) for link in estimate.links], estimate.quality, estimate.flag]


def _from_json(entry: list[Any]) -> Estimate:
    z, links, quality, flag = entry
    return Estimate(z, tuple(Link(*link) for link in links), quality, flag)


def _print(table: Sequence[SliceShift]) -> None:
    far = [max(abs(s.measured_dy), abs(s.measured_dx)) for s in table]
    print(f"shifts      up to {max(far):.1f} pixels from the first slice")
    flagged = [s for s in table if s.flag]
    if flagged:
        few = ", ".join(f"{s.z} ({s.flag})" for s in flagged[:10])
        more = f" and {len(flagged) - 10} more" if len(flagged) > 10 else ""
        print(f"warning: {len(flagged)} slices could not be measured: {few}{more}; their shifts are"
              " those of their neighbours")  # fmt: skip


def _check_box(volume: Volume, box: Box, shifts: np.ndarray, *, table: object) -> None:
    _, h, w = volume.shape
    if min(box.height, box.width) > 0 and box.height * box.width >= MIN_SHARED_AREA * h * w:
        return
    worst = []
    for axis in (0, 1):
        if np.ptp(shifts[:, axis]) > 0:
            worst += [int(shifts[:, axis].argmin()), int(shifts[:, axis].argmax())]
    named = ", ".join(
        f"{z} {volume.slice_names[z]} ({shifts[z, 0]:g}, {shifts[z, 1]:g})"
        for z in dict.fromkeys(worst)
    )
    raise InputError(
        f"{volume.path}: after alignment all slices share {max(box.height, 0)} x"
        f" {max(box.width, 0)} pixels of {h} x {w}, less than a quarter; furthest apart, by y and"
        f" x, are the slices {named}; look at {table}, try a smaller --max_shift, --keep_trend, or"
        " leave such slices out"
    )
