"""A pyramid as a data source of neuroglancer."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging
from neuroglancer import CoordinateSpace
from neuroglancer.chunks import encode_npz
from neuroglancer.local_volume import LocalVolume, MeshesNotSupportedForVolume

from vemseg_jax.data.store.downsample import FACTOR
from vemseg_jax.view.pyramid import Pyramid

IMAGE, SEGMENTATION = "image", "segmentation"
# Values read per value sent, at most.
_MAX_READ = 64
_CONTENT_TYPE = "application/octet-stream"


def _zyx(values: Iterable[Any]) -> tuple[int, int, int]:
    z, y, x = (int(value) for value in values)
    return z, y, x


class PyramidSource(LocalVolume):
    """Serves pieces of a pyramid, in flat chunks, so that a slice on screen reads that slice.

    neuroglancer's own class reduces from the finest level whatever the reduction, and makes
    meshes from the whole array in memory; this one does neither.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        *,
        name: str,
        voxel_size: tuple[float, float, float],
        volume_type: str,
        has_training: bool,
    ):
        """Wraps a pyramid.

        Args:
          pyramid: what is served.
          name: named where pixels cannot be read.
          voxel_size: nm, zyx, of the finest level of the pyramid.
          volume_type: "image" or "segmentation".
          has_training: whether coarse reductions come from a training level.
        """
        super().__init__(
            pyramid,
            dimensions=CoordinateSpace(names=["z", "y", "x"], units="nm", scales=list(voxel_size)),
            volume_type=volume_type,
            downsampling="2d",
            max_downsampling=_MAX_READ * (FACTOR**2 if has_training else 1),
        )
        self._pyramid, self._name = pyramid, name

    def get_encoded_subvolume(
        self, data_format: str, start: np.ndarray, end: np.ndarray, scale_key: str
    ) -> tuple[bytes, str]:
        """Answers a request of the page; ValueError becomes status 400 there."""
        if data_format != self.encoding:
            raise ValueError(f"encoding {data_format!r}; it is {self.encoding!r}")
        factors = _zyx(scale_key.split(","))
        if math.prod(factors) > self.max_downsampling:
            raise ValueError(f"reduction by {factors}; at most {self.max_downsampling} to one")
        try:
            piece = self._pyramid.read(_zyx(start), _zyx(end), factors=factors)
        except (ValueError, OSError) as error:
            logging.warning("%s: %s", self._name, error)
            raise
        return encode_npz(piece), _CONTENT_TYPE

    def get_object_mesh(self, object_id: int) -> bytes:
        """There are no meshes."""
        raise MeshesNotSupportedForVolume
