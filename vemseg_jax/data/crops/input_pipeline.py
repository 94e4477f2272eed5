"""Slices on the device, and batches cut from them inside the jitted step."""

from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jax import lax

from vemseg_jax.data.crops.augment import flip_turn
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import IGNORE, TRAINING, UNLABELLED, Volume


@flax.struct.dataclass
class Planes:
    """Slices at training scale.

    `image [n, h, w]` of the volume's type; `label [n, h, w, c]` uint8: 0 background, 1
    structure, 255 not labelled or ignored; None for slices read without labels; `ignored
    [n, h, w]` uint8: 1 where a pixel is left out of everything; None where the volume has no
    such pixels.
    """

    image: Any
    label: Any
    ignored: Any = None


@flax.struct.dataclass
class Batch:
    """`image [b, s, s, 1]` float32 normalised; `target` and `valid [b, s, s, c]` float32, 0 or 1.

    `valid` is 0 where a pixel is not labelled or ignored: it is no background. `seen
    [b, s, s, 1]` float32 is 0 only where it is ignored, which pseudo labels heed as well.
    Crops of slices without labels have None for `target` and `valid`.
    """

    image: Any
    target: Any
    valid: Any
    seen: Any = None


def _planes(store: ts.TensorStore, slices: Sequence[int]) -> np.ndarray:
    """`[n, h, w]`, the chosen slices of a stored array `[z, y, x]`."""
    return np.stack([plane for _, (plane,) in read_slices([store], slices)])


def _label_planes(volume: Volume, structure: str, slices: Sequence[int]) -> np.ndarray:
    """`[n, h, w]` labels of one structure, 255 throughout where a slice has none."""
    h, w = volume.plane_shape(TRAINING)
    planes = np.full((len(slices), h, w), UNLABELLED, np.uint8)
    labelled = set(volume.labelled_slices(structure))
    chosen = {z: n for n, z in enumerate(slices) if z in labelled}
    for z, (plane,) in read_slices([volume.label(structure, TRAINING)], list(chosen)):
        planes[chosen[z]] = plane
    return planes


def load_slices(volume: Volume, structures: Sequence[str], slices: Sequence[int]) -> Planes:
    """Reads slices and their labels at training scale, ignored pixels marked as not labelled.

    Raises:
      InputError: a slice on disk is damaged.
    """
    planes = load_unlabelled(volume, slices)
    label = np.stack([_label_planes(volume, name, slices) for name in structures], -1)
    if planes.ignored is not None:
        label[planes.ignored == 1] = UNLABELLED
    return Planes(planes.image, label, planes.ignored)


def labelled_planes(
    volume: Volume, structures: Sequence[str], slices: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image `[h, w]` and labels `[h, w, c]` of slice after slice, as `load_slices` has them.

    Raises:
      InputError: a slice on disk is damaged.
    """
    for z in slices:
        planes = load_slices(volume, structures, [z])
        yield planes.image[0], planes.label[0]


def load_unlabelled(volume: Volume, slices: Sequence[int]) -> Planes:
    """Reads slices without their labels at training scale.

    Raises:
      InputError: a slice on disk is damaged.
    """
    ignored = _planes(volume.label(IGNORE, TRAINING), slices) if volume.has_ignore else None
    return Planes(_planes(volume.image(TRAINING), slices), None, ignored)


def short_sides(size: Sequence[int], window: int) -> tuple[int, int]:
    """Rows and columns that slices of `size` (h, w) lack for a window."""
    return max(window - size[0], 0), max(window - size[1], 0)


def reflect_pad(planes: np.ndarray, short: tuple[int, int]) -> np.ndarray:
    """Mirrors `[n, h, w, ...]` by so many rows and columns, half of them at the top and left."""
    if not any(short):
        return planes
    pad = [(0, 0), *((n // 2, n - n // 2) for n in short)]
    return np.pad(planes, [*pad, (0, 0)][: planes.ndim], mode="reflect")


def pad_to_crop(planes: Planes, crop_size: int) -> Planes:
    """Mirrors slices smaller than a crop, as inference does."""
    short = short_sides(planes.image.shape[1:3], crop_size)
    return jax.tree.map(lambda x: reflect_pad(x, short), planes) if any(short) else planes


def _cut(planes: jax.Array, crops: Crops, size: int) -> jax.Array:
    """`[n, h, w, c]` -> `[b, size, size, c]`."""

    def one(plane: jax.Array, corner: jax.Array) -> jax.Array:
        start = (plane, corner[0], corner[1], jnp.int32(0))
        return lax.dynamic_slice(planes, start, (1, size, size, planes.shape[-1]))[0]

    return jax.vmap(one)(crops.plane, crops.corner)


def make_batch(
    planes: Planes | tuple[Planes, ...],
    crops: Crops | tuple[Crops, ...],
    *,
    crop_size: int,
    normalization: Normalization | tuple[Normalization, ...],
) -> Batch:
    """Cuts, normalises and augments one batch; runs inside the jitted step.

    Args:
      planes: slices at least as large as a crop; of several volumes, a tuple.
      crops: which slice, corner and symmetry each crop has; a tuple likewise.
      crop_size: side of a crop.
      normalization: of the grey values; of several volumes one for each, or one for all.
    """
    if not isinstance(planes, Planes):
        assert not isinstance(crops, Crops)
        own = normalization
        if isinstance(own, Normalization):
            own = (own,) * len(planes)
        parts = [
            make_batch(each, where, crop_size=crop_size, normalization=its)
            for each, where, its in zip(planes, crops, own, strict=True)
        ]
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
    assert isinstance(crops, Crops)
    if not isinstance(normalization, Normalization):
        (normalization,) = normalization
    image = _cut(planes.image[..., None], crops, crop_size).astype(jnp.float32)
    image = flip_turn(normalization(image), crops.symmetry)
    seen = jnp.ones_like(image)
    if planes.ignored is not None:
        ignored = flip_turn(_cut(planes.ignored[..., None], crops, crop_size), crops.symmetry)
        seen = (ignored == 0).astype(jnp.float32)
    if planes.label is None:
        return Batch(image=image, target=None, valid=None, seen=seen)
    label = flip_turn(_cut(planes.label, crops, crop_size), crops.symmetry)
    return Batch(
        image=image,
        target=(label == 1).astype(jnp.float32),
        valid=(label != UNLABELLED).astype(jnp.float32),
        seen=seen,
    )
