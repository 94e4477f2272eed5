"""Checks of images: slices that are missing, damaged or unlike the others."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorstore as ts

from vemseg_jax.data.check.drift import MATCH, check_drift
from vemseg_jax.data.check.report import ERROR, PERCENTILES, WARNING, Finding, ImageFacts, percent
from vemseg_jax.data.store.failures import is_damage
from vemseg_jax.data.store.normalization import slice_statistics
from vemseg_jax.data.store.slice_list import slice_list
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume, array_path, is_stored
from vemseg_jax.errors import InputError

SATURATED_SHARE = 0.05
LABELLED_DISTANCE = 0.15
LEAST_COMPARED = 3


def missing_shards(array: Path, slices: Iterable[int]) -> list[int]:
    """Slices of an array on disk that have no file, see `is_stored`."""
    return [z for z in slices if not is_stored(array, z)]


def read_plane(array: ts.TensorStore, z: int, damaged: list[int]) -> np.ndarray | None:
    """One slice `[h, w]` of an array; None, and `z` added to `damaged`, where it is damaged."""
    try:
        ((_, (plane,)),) = read_slices([array], [z])
    except InputError as error:
        if not is_damage(error):
            raise
        damaged.append(z)
        return None
    return plane


def check_stored(volume: Volume, slices: Sequence[int]) -> list[Finding]:
    """Findings on slices that are not stored, blank, or copies of the one before."""
    findings = []
    mean, std = volume.slice_mean, volume.slice_std
    for level in dict.fromkeys((FULL, TRAINING)):
        path = array_path(level, volume.downsample)
        if level == TRAINING and path == array_path(FULL, volume.downsample):
            continue
        # A slice that is nearly black can be black throughout once it is downsampled.
        least = 0 if level == FULL else 0.5 / volume.dtype_max
        lost = [z for z in missing_shards(volume.path / path, slices) if mean[z] > least]
        if lost:
            findings.append(
                Finding(
                    ERROR,
                    "missing_slices",
                    f"image files of slices {slice_list(lost)} are not in {volume.path / path},"
                    " so they read as black",
                    "restore the volume from a backup or convert it again",
                    tuple(lost),
                )
            )
    blank = [z for z in slices if std[z] == 0]
    if blank:
        findings.append(
            Finding(
                WARNING,
                "blank_slices",
                f"slices {slice_list(blank)} have one grey value throughout",
                "replace lost slices by copies of their neighbours, or leave them out with"
                " --config.data.z_range",
                tuple(blank),
            )
        )
    pairs = itertools.pairwise(slices)
    copies = [b for a, b in pairs if std[b] > 0 and (mean[a], std[a]) == (mean[b], std[b])]
    if copies:
        findings.append(
            Finding(
                WARNING,
                "copied_slices",
                f"slices {slice_list(copies)} look like copies of the slices before them",
                "correct the file list if it holds a slice twice; copies that stand in for lost"
                " slices need no label",
                tuple(copies),
            )
        )
    return findings


@dataclasses.dataclass
class _Histograms:
    """Counts of grey values, summed over slices."""

    labelled: np.ndarray
    others: np.ndarray
    labelled_slices: int = 0
    other_slices: int = 0

    def add(self, counts: np.ndarray, *, labelled: bool) -> None:
        if labelled:
            self.labelled += counts
            self.labelled_slices += 1
        else:
            self.others += counts
            self.other_slices += 1

    def distance(self) -> float | None:
        """Kolmogorov-Smirnov; None where there are fewer than `LEAST_COMPARED` slices."""
        if min(self.labelled_slices, self.other_slices) < LEAST_COMPARED:
            return None
        a, b = (np.cumsum(h) / h.sum() for h in (self.labelled, self.others))
        return float(np.abs(a - b).max())


def _percentiles(counts: np.ndarray, dtype_max: int) -> tuple[float, ...]:
    total = np.cumsum(counts)
    found = np.searchsorted(total, np.array(PERCENTILES) / 100 * total[-1])
    return tuple(float(v) for v in found / dtype_max)


def check_grey_values(
    volume: Volume, slices: Sequence[int], sample: Sequence[int], labelled: set[int]
) -> tuple[ImageFacts, list[Finding]]:
    """Facts and findings on the images of a volume.

    Args:
      volume: what is checked.
      slices: all slices in range, ascending; their recorded statistics are looked at.
      sample: slices to read at training scale.
      labelled: slices with a label of any structure.
    """
    findings = check_stored(volume, slices)
    known = {z for finding in findings for z in finding.slices}
    drift, drift_findings = check_drift(volume, slices)
    levels = volume.dtype_max + 1
    pooled = _Histograms(np.zeros(levels, np.int64), np.zeros(levels, np.int64))
    damaged: list[int] = []
    changed, checked, percentiles = [], [], []
    for z in sample:
        plane = read_plane(volume.image(TRAINING), z, damaged)
        if plane is None or z in known:
            continue
        mean, _ = slice_statistics(plane)
        # The training scale keeps a part of the pixels, so its mean is a little another.
        recorded_std = float(volume.slice_std[z])
        slack = recorded_std * (0.1 + 8 / plane.size**0.5) + 1 / volume.dtype_max
        if abs(mean - volume.slice_mean[z]) > slack:
            changed.append(z)
            continue
        counts = np.bincount(plane.ravel(), minlength=levels)
        pooled.add(counts, labelled=z in labelled)
        checked.append(z)
        percentiles.append(_percentiles(counts, volume.dtype_max))
    total = pooled.labelled + pooled.others
    pixels = max(int(total.sum()), 1)
    # Values of 12 bit in a type of 16 end at 4095: the range that is there counts.
    there = np.flatnonzero(total)
    least, greatest = (int(there[0]), int(there[-1])) if there.size > 1 else (0, volume.dtype_max)
    mean_, std_ = volume.slice_mean[list(slices)], volume.slice_std[list(slices)]
    facts = ImageFacts(
        checked=tuple(checked),
        mean_range=(float(mean_.min()), float(mean_.max())),
        std_range=(float(std_.min()), float(std_.max())),
        drift=drift,
        black=float(total[least]) / pixels,
        white=float(total[greatest]) / pixels,
        levels=(least, greatest),
        labelled_distance=pooled.distance(),
        percentiles=tuple(percentiles),
    )
    return facts, [
        *findings,
        *_unreadable(volume, damaged, changed),
        *drift_findings,
        *_spread(facts),
    ]


def _unreadable(volume: Volume, damaged: list[int], changed: list[int]) -> list[Finding]:
    path = volume.path / array_path(TRAINING, volume.downsample)
    again = "restore the volume from a backup or convert it again"
    findings = []
    if damaged:
        text = f"slices {slice_list(damaged)} of {path} are damaged and cannot be read"
        findings.append(Finding(ERROR, "damaged_slices", text, again, tuple(damaged)))
    if changed:
        text = f"slices {slice_list(changed)} of {path} have another mean than the conversion noted"
        findings.append(Finding(ERROR, "changed_slices", text, again, tuple(changed)))
    return findings


def _spread(facts: ImageFacts) -> list[Finding]:
    findings = []
    for share, what in ((facts.black, "black"), (facts.white, "white")):
        if share > SATURATED_SHARE:
            findings.append(
                Finding(
                    WARNING,
                    f"saturated_{what}",
                    f"{percent(share)} of the pixels are {what} throughout",
                    "mask borders without tissue with vemseg-convert --ignore; if tissue is"
                    f" clipped to {what}, export the images with another contrast",
                )
            )
    distance = facts.labelled_distance
    if distance is not None and distance > LABELLED_DISTANCE:
        findings.append(
            Finding(
                WARNING,
                "labelled_unlike_others",
                f"grey values of the labelled slices are not those of the others (distance"
                f" {distance:.2f} of 1)",
                f"even them out with {MATCH}, or label slices that look like the others",
            )
        )
    return findings
