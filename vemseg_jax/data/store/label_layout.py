"""Which arrays a label image has, and what its metadata say."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.downsample import FACTOR
from vemseg_jax.data.store.volume import FULL, TRAINING, array_path, create_array, plane_shape

# A coarse last level of labels that lack one, so that they have as many as the image.
EXTRA, EXTRA_STEP = "2", 2


@dataclasses.dataclass(frozen=True)
class LabelLayout:
    """The arrays of a label image, finest first.

    Attributes:
      shape, voxel_size, downsample: of the volume.
      levels: FULL, TRAINING or both.
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    downsample: int
    levels: tuple[str, ...]

    @classmethod
    def of(
        cls,
        levels: Sequence[str],
        *,
        shape: tuple[int, int, int],
        voxel_size: tuple[float, float, float],
        downsample: int,
    ) -> "LabelLayout":
        """For the levels asked for; of a volume without a training scale both are one."""
        chosen = tuple(level for level in (FULL, TRAINING) if level in levels or downsample == 1)
        return cls(shape, voxel_size, downsample, chosen)

    @property
    def paths(self) -> dict[str, str]:
        """Name of the array of each level."""
        return {level: array_path(level, self.downsample) for level in self.levels}

    @property
    def has_extra(self) -> bool:
        """Whether there is a coarse array beside the only level."""
        return len(self.levels) == 1

    @property
    def factors(self) -> dict[str, int]:
        """Pixels of full resolution along y and x per pixel of each array, finest first."""
        factors = {path: 1 if path == "0" else FACTOR for path in self.paths.values()}
        if self.has_extra:
            factors[EXTRA] = EXTRA_STEP * min(factors.values())
        return factors

    @property
    def planes(self) -> dict[str, tuple[int, int]]:
        """`(h, w)` of a slice in each array, finest first."""
        planes = {
            path: plane_shape(self.shape, level, self.downsample)
            for level, path in self.paths.items()
        }
        if self.has_extra:
            (h, w), *_ = planes.values()
            planes[EXTRA] = (-(-h // EXTRA_STEP), -(-w // EXTRA_STEP))
        return planes

    def create(
        self,
        directory: Path,
        *,
        fill_value: int,
        reopen: bool,
        part: tuple[int, int] | None = None,
    ) -> dict[str, ts.TensorStore]:
        """Creates the arrays, uint8, by name.

        Args:
          directory: of the label.
          fill_value: what nobody wrote reads as.
          reopen: open those that are there.
          part: `(h, w)` of the largest shard in pixels of the training scale, so that several
            writers share a slice; by default a shard is a slice.
        """
        arrays = {}
        for path, plane in self.planes.items():
            h, w = (n * self.downsample // self.factors[path] for n in part or (0, 0))
            arrays[path] = create_array(
                directory / path,
                shape=(self.shape[0], *plane),
                dtype=np.dtype(np.uint8),
                fill_value=fill_value,
                reopen=reopen,
                part=None if part is None else (h, w),
            )
        return arrays

    def write_group(
        self, directory: Path, name: str, attributes: dict[str, Any], *, shades: bool = False
    ) -> None:
        """Writes the metadata, after which the label is complete.

        Args:
          directory: of the label.
          name: of the label.
          attributes: what the package records: kind, labelled_slices and provenance.
          shades: its values are 0 to 255, not 0 and 1.
        """
        # The extra array takes every other pixel, from the first one on.
        base = min(self.factors.values())
        levels = [
            (path, factor, 1.5 if base == FACTOR or factor == FACTOR else 0.0)
            for path, factor in self.factors.items()
        ]
        metadata = ome.multiscales(name, voxel_size=self.voxel_size, levels=levels)
        metadata["image-label"] = ome.image_label(name, shades=shades)
        info = {**attributes, "levels": list(self.levels)}
        ome.write_group(directory, {"ome": metadata, "vemseg": info})
