"""Whether two volumes show the same slices: copies, preprocessed ones, other conversions.

Slices that a network was trained on are no test slices in whatever copy they are met again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.volume import Volume, open_volume
from vemseg_jax.errors import InputError

PREPROCESS = "preprocess"
# Of so many slices, evenly spaced, the grey values are kept to tell the images by.
PROFILE = 256
# Fewer slices may go together by chance.
LEAST_SLICES = 6
# What brightness and contrast leave unexplained of how grey values run along z, as a share. Of
# real stacks, 0.3 of the brightness rounded to 8 bit leaves 0.03, the next slices of the same stack
# 0.12, other images 0.3 and more.
UNEXPLAINED = 0.05
# Contrast is the same factor for the mean and for the deviation of a slice of the same pixels.
CONTRASTS_DIFFER = 0.1
# Binning leaves the means as they are, to 0.002, and not the deviations.
BINNED = 0.01


@dataclasses.dataclass(frozen=True)
class Identity:
    """What tells the images of a volume from others.

    Attributes:
      fingerprints: of its images, and of those that vemseg-preprocess made them from, step by step.
      shape: zyx, full resolution.
      names: stands for the names of the slices; empty where they have none.
      source: what was converted.
      mean, std: of up to 256 slices, evenly spaced.
    """

    fingerprints: tuple[str, ...]
    shape: tuple[int, int, int]
    names: str
    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Identity":
        """From JSON values."""
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**made)


@dataclasses.dataclass(frozen=True)
class Relation:
    """How a volume goes together with another one.

    Attributes:
      same: slice z of one is slice z of the other.
      text: why that is so, or if not `same` why it may be.
    """

    same: bool
    text: str


SAME_IMAGES = Relation(True, "the same images")
PREPROCESSED = Relation(True, "made from the same images by vemseg-preprocess")
REGRADED = Relation(
    True, "the same images with other grey values: those of the slices run alike along z"
)


def identity(volume: Volume) -> Identity:
    """Of a volume."""
    info = ome.read_group(volume.path).get("vemseg", {})
    steps = info.get(PREPROCESS) or ()
    made_from = [str(step["fingerprint"]) for step in steps if "fingerprint" in step]
    chosen = _chosen(volume.shape[0])
    return Identity(
        fingerprints=tuple(dict.fromkeys([volume.fingerprint, *made_from])),
        shape=volume.shape,
        names=_names(volume),
        source=volume.source,
        mean=_rounded(volume.slice_mean[chosen]),
        std=_rounded(volume.slice_std[chosen]),
    )


def _names(volume: Volume) -> str:
    """Stands for the names of the slices; empty where they are but numbered, as in one file."""
    if [name.lstrip("0") or "0" for name in volume.slice_names] == [
        str(z) for z in range(volume.shape[0])
    ]:
        return ""
    return hashlib.sha256(json.dumps(volume.slice_names).encode()).hexdigest()[:16]


def _chosen(depth: int) -> np.ndarray:
    return np.unique(np.round(np.linspace(0, depth - 1, min(depth, PROFILE))).astype(int))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """To seven digits, which is far more than grey values tell."""
    return tuple(float(f"{value:.7g}") for value in values)


def relation(one: Identity, other: Identity) -> Relation | None:
    """How two volumes go together; None where nothing says that they do."""
    if one.fingerprints[0] == other.fingerprints[0]:
        return SAME_IMAGES
    if set(one.fingerprints) & set(other.fingerprints):
        return PREPROCESSED
    if _alike(one, other):
        return REGRADED
    if one.names and one.names == other.names and one.shape == other.shape:
        return Relation(False, "slices of the same number, names and size")
    if one.source and one.source == other.source and one.shape[0] == other.shape[0]:
        return Relation(False, f"as many slices from the same source, {one.source}")
    return None


def _alike(one: Identity, other: Identity) -> bool:
    """Whether brightness and contrast alone make the slices of one those of the other."""
    if one.shape[0] != other.shape[0] or one.shape[0] < LEAST_SLICES:
        return False
    of_mean, left_of_mean = _fit(np.asarray(one.mean), np.asarray(other.mean))
    of_std, left_of_std = _fit(np.asarray(one.std), np.asarray(other.std))
    if one.shape != other.shape and left_of_mean < BINNED and abs(of_mean - 1) < BINNED:
        return True
    # A negative has the means the other way round.
    return (
        max(left_of_mean, left_of_std) < UNEXPLAINED
        and of_std > 0
        and abs(of_std / abs(of_mean) - 1) < CONTRASTS_DIFFER
    )


def _fit(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The slope of b over a, and what a straight line leaves unexplained, as a share."""
    a, b = a - a.mean(), b - b.mean()
    if not a.any() or not b.any():
        return 1.0, 1.0
    slope = float(a @ b / (a @ a))
    return slope, float(np.linalg.norm(b - slope * a) / np.linalg.norm(b))


def marks(volume: Volume, slices: Sequence[int]) -> tuple[tuple[int, float, float], ...]:
    """z, mean and deviation of some slices, by which they are known wherever they lie."""
    return tuple((int(z), float(volume.slice_mean[z]), float(volume.slice_std[z])) for z in slices)


def find_marked(volume: Volume, marked: Sequence[tuple[int, float, float]]) -> dict[int, int]:
    """Slices of a volume that are marked ones, to the last digit: z here to z there.

    A substack, or a stack turned over, has them at other places. Slices of one grey value
    throughout are like any other such slice, and are not told apart.
    """
    there = {(mean, std): z for z, mean, std in marked if std > 0}
    pairs = zip(volume.slice_mean.tolist(), volume.slice_std.tolist(), strict=True)
    return {z: there[pair] for z, pair in enumerate(pairs) if pair in there}


def identity_at(path: str, fingerprint: str) -> Identity | None:
    """Of the volume at a path, if it is there and still the one of a fingerprint."""
    try:
        volume = open_volume(path)
    except (InputError, OSError):
        return None
    return identity(volume) if volume.fingerprint == fingerprint else None
