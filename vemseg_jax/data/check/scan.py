"""Reads the labels of a volume once, and counts."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from vemseg_jax.data.check.images import read_plane
from vemseg_jax.data.convert.empty_slices import LabelContent
from vemseg_jax.data.store.volume import IGNORE, TRAINING, UNLABELLED, Volume

# Smaller masks can be the same by chance.
COPY_PIXELS = 100
NUCLEI, NUCLEOLI = "nuclei", "nucleoli"


@dataclasses.dataclass
class LabelScan:
    """What was read of the labels of one structure, at training scale.

    Attributes:
      slices: labelled slices that could be read and hold a label.
      pixels, known: pixels of the structure; labelled pixels that are not ignored.
      digests: of masks of `COPY_PIXELS` and more, by slice.
      masks: bool `[h, w]` of the slices that were to be kept.
      content: pixels and thinned masks of all slices, ignored pixels included.
      damaged, blank: slices that cannot be read, or hold no label though they are listed.
    """

    slices: list[int] = dataclasses.field(default_factory=list)
    pixels: list[int] = dataclasses.field(default_factory=list)
    known: list[int] = dataclasses.field(default_factory=list)
    digests: dict[int, str] = dataclasses.field(default_factory=dict)
    masks: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    content: LabelContent = dataclasses.field(default_factory=LabelContent)
    damaged: list[int] = dataclasses.field(default_factory=list)
    blank: list[int] = dataclasses.field(default_factory=list)

    def add(self, z: int, plane: np.ndarray, ignored: np.ndarray | None, *, keep: bool) -> None:
        """Takes a label `[h, w]` uint8 of slice `z`."""
        known = plane != UNLABELLED
        if not known.any():
            self.blank.append(z)
            return
        if ignored is not None:
            known &= ~ignored
        mask = plane == 1
        self.content.add(z, mask, known=int(known.sum()))
        pixels = int((mask & known).sum())
        self.slices.append(z)
        self.pixels.append(pixels)
        self.known.append(int(known.sum()))
        if pixels >= COPY_PIXELS:
            self.digests[z] = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
        if keep:
            self.masks[z] = mask

    @property
    def shares(self) -> np.ndarray:
        """`[n]`, the structure's share of the pixels that count; 0 where none counts."""
        return np.array(self.pixels) / np.maximum(self.known, 1)


@dataclasses.dataclass
class Scans:
    """The scans by structure, and what was counted across them.

    Attributes:
      ignored, pixels: of the labelled slices together.
      nucleoli, outside: pixels of nucleoli on slices where nuclei are labelled too, and those of
        them that are no nucleus; by slice.
      damaged_ignore: slices whose ignore mask cannot be read.
    """

    by_name: dict[str, LabelScan]
    ignored: int = 0
    pixels: int = 0
    nucleoli: dict[int, int] = dataclasses.field(default_factory=dict)
    outside: dict[int, int] = dataclasses.field(default_factory=dict)
    damaged_ignore: list[int] = dataclasses.field(default_factory=list)


def scan_labels(
    volume: Volume, labelled: Mapping[str, Sequence[int]], keep: Mapping[str, set[int]]
) -> Scans:
    """Reads all labelled slices once.

    Args:
      volume: what is checked.
      labelled: slices to read, by structure.
      keep: slices whose masks are kept, by structure.

    Raises:
      InputError: a label has no training scale.
    """
    scans = Scans({name: LabelScan() for name in labelled})
    arrays = {name: volume.label(name, TRAINING) for name in labelled}
    ignore = volume.label(IGNORE, TRAINING) if volume.has_ignore else None
    chosen = {name: set(zs) for name, zs in labelled.items()}
    for z in sorted(set().union(*chosen.values())):
        mask = None if ignore is None else read_plane(ignore, z, scans.damaged_ignore)
        ignored = None if mask is None else mask == 1
        planes = {}
        for name, zs in chosen.items():
            if z not in zs:
                continue
            scan = scans.by_name[name]
            plane = read_plane(arrays[name], z, scan.damaged)
            if plane is not None:
                planes[name] = plane
                scan.add(z, plane, ignored, keep=z in keep[name])
        if ignored is not None:
            scans.ignored += int(ignored.sum())
            scans.pixels += ignored.size
        if NUCLEI in planes and NUCLEOLI in planes:
            nucleoli = (planes[NUCLEOLI] == 1) & (planes[NUCLEI] != UNLABELLED)
            scans.nucleoli[z] = int(nucleoli.sum())
            scans.outside[z] = int((nucleoli & (planes[NUCLEI] != 1)).sum())
    return scans
