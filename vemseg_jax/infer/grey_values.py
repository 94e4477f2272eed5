"""By which statistics the grey values of a volume are normalised before they pass a network."""

import dataclasses
from typing import Any

import numpy as np

from vemseg_jax.config import plain
from vemseg_jax.data.store.normalization import Normalization, of_volume
from vemseg_jax.data.store.volume import Volume
from vemseg_jax.infer.trained import Description

VOLUME, TRAINING, SLICE = "volume", "training", "slice"
NORMALIZATIONS = (VOLUME, TRAINING, SLICE)
# Of a slice, the least deviation as a share of the volume's: the noise of an empty slice is not
# blown up to what tissue looks like.
LEAST_CONTRAST = 0.1
# From where on the training's statistics cost a network its result: the mean moved by so many of
# the training's deviations, or the deviation another by this factor. Nuclei of HeLa cells, a small
# U-Net: Dice 0.84 becomes 0.79 at 0.3 deviations, 0.34 at 0.6 and 0.00 at 1.2; 0.75 at a contrast
# of 0.8, 0.67 at 1.2. By the volume's own statistics it stays 0.84 throughout.
MEAN_MOVED, CONTRAST_CHANGED = 0.2, 1.15


@dataclasses.dataclass(frozen=True)
class GreyValues:
    """How the grey values of one volume are normalised.

    Attributes:
      kind: "volume", "training" or "slice".
      own: by the volume's own statistics; of a training volume, what its crops were normalised by.
      trained: by the statistics of the training.
      mean, std: `[z]` of every slice on the 0-1 scale, of "slice".
    """

    kind: str
    own: Normalization
    trained: Normalization
    mean: np.ndarray
    std: np.ndarray

    @property
    def used(self) -> Normalization:
        """Of all slices alike; of "slice" the one that bounds their contrast."""
        return self.trained if self.kind == TRAINING else self.own

    def record(self) -> dict[str, Any]:
        """As JSON values, for the result."""
        return {"by": self.kind, **plain(self.used)}

    def of(
        self, slices: tuple[int, ...], planes: np.ndarray
    ) -> tuple[np.ndarray, Normalization | None]:
        """Grey values `[s, h, w]` of some slices, and what is still to be done to them."""
        if self.kind != SLICE:
            return planes, self.used
        zs = list(slices)
        least = max(LEAST_CONTRAST * self.own.std, 1 / self.own.dtype_max)
        mean, std = self.mean[zs], np.maximum(self.std[zs], least)
        scale = np.float32(self.own.dtype_max)
        mean, std = (x.astype(np.float32)[:, None, None] for x in (mean, std))
        return (planes.astype(np.float32) / scale - mean) / std, None

    @property
    def differ(self) -> bool:
        """Whether the volume's statistics are so far from the training's that it matters."""
        moved = abs(self.own.mean - self.trained.mean) / self.trained.std
        factor = self.own.std / self.trained.std
        return moved > MEAN_MOVED or not 1 / CONTRAST_CHANGED <= factor <= CONTRAST_CHANGED

    def lines(self, *, what: str = "volume", option: str = "--normalization") -> list[str]:
        """For the log: what is done, and a warning where the statistics differ by much.

        Args:
          what: has these grey values.
          option: by which the user chooses.
        """
        by = {
            VOLUME: f"by the {what}'s own {_said(self.own)}",
            TRAINING: f"by the training's {_said(self.trained)}",
            SLICE: "by each slice's own mean and deviation",
        }
        lines = [f"grey values normalised {by[self.kind]}"]
        if not self.differ:
            return lines
        found = (
            f"warning: the {what}'s grey values ({_said(self.own)}) are far from those of the"
            f" training ({_said(self.trained)})"
        )
        if self.kind == TRAINING:
            advice = (
                f"the network gets what it has never seen; {option}=volume brings them to"
                " the same mean and deviation"
            )
        else:
            advice = (
                "look at a few slices of the result; where brightness and contrast are the same"
                f" and only what the slices show differs, {option}=training is right"
            )
        return [*lines, f"{found}: {advice}"]


def _said(norm: Normalization) -> str:
    return f"mean {norm.mean:.3g}, deviation {norm.std:.3g}"


def grey_values(kind: str, volume: Volume, description: Description) -> GreyValues:
    """The normalisation of a volume for a trained network.

    Args:
      kind: "volume": by the volume's own statistics, on a training volume those of its training;
        "training": by those of the training whatever the volume; "slice": each slice by its own.
      volume: to predict.
      description: of the network.
    """
    known = description.normalization_in(volume.fingerprint)
    own, trained = (
        dataclasses.replace(each, dtype_max=volume.dtype_max)
        for each in (known or of_volume(volume), description.normalization)
    )
    return GreyValues(kind, own, trained, volume.slice_mean, volume.slice_std)
