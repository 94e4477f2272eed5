"""Crops read from disk one batch at a time, for slices that do not fit the device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts

from vemseg_jax.data.crops.input_pipeline import Planes, reflect_pad, short_sides
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.downsample import (
    FACTOR,
    downsample_ignore,
    downsample_image,
    downsample_label,
)
from vemseg_jax.data.store.slices import plane_of, read_slices
from vemseg_jax.data.store.volume import FULL, IGNORE, TRAINING, UNLABELLED, Volume


def open_cached(array: ts.TensorStore, context: ts.Context) -> ts.TensorStore:
    """The same array, whose decoded chunks stay in the cache of `context`.

    The files are taken not to change while it is open: without that, every read would look.
    """
    spec = array.spec().to_json()
    spec |= {"recheck_cached_data": "open", "recheck_cached_metadata": "open"}
    return ts.open(spec, context=context, open=True, read=True).result()


@dataclass(frozen=True)
class _Layer:
    """A stored array `[z, y, x]` and the slices of it that count, None for all."""

    array: ts.TensorStore
    slices: frozenset[int] | None = None


class WindowReader:
    """Reads the windows of a batch of crops, image, labels and ignore mask, in one go.

    What comes back is a `Planes` of b slices as large as a crop, so that whatever works on
    slices held on the device works on it too, with crops that take each of them whole.

    Attributes:
      size: `(h, w)` of the slices at the level that is read, mirrored up to a window if they
        are smaller: crop corners lie in it.
      window: side of what is read for a crop, in pixels of that level.
    """

    def __init__(
        self,
        volume: Volume,
        structures: Sequence[str],
        slices: Sequence[int],
        *,
        crop_size: int,
        exact_offsets: bool,
        cache_bytes: int,
    ):
        """Opens the arrays; reads no pixel.

        Args:
          volume: where to read.
          structures: label images; none for crops without labels.
          slices: those that the `plane` of a crop counts.
          crop_size: side of a crop in training-scale pixels.
          exact_offsets: corners are pixels of the full resolution, and a crop is downsampled from
            there; otherwise they are pixels of the training scale, and so is what is read.
          cache_bytes: of decoded chunks that are kept, of all arrays together.
        """
        self._slices, self._structures = list(slices), tuple(structures)
        level = FULL if exact_offsets else TRAINING
        self._reduced = exact_offsets and volume.downsample != 1
        self.window = crop_size * (FACTOR if self._reduced else 1)
        plane = volume.plane_shape(level)
        self._short = short_sides(plane, self.window)
        self.size = (plane[0] + self._short[0], plane[1] + self._short[1])
        context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
        self._image = _Layer(open_cached(volume.image(level), context))
        self._labels = [
            _Layer(
                open_cached(volume.label(name, level), context),
                frozenset(volume.labelled_slices(name)),
            )
            for name in structures
        ]
        self._ignore = None
        if volume.has_ignore:
            self._ignore = _Layer(open_cached(volume.label(IGNORE, level), context))

    def label_planes(self) -> Iterator[np.ndarray]:
        """Whole slices of labels `[h, w, c]`, one by one, as the sampler indexes them.

        Raises:
          InputError: a slice on disk is damaged.
        """
        layers = [*self._labels, *([self._ignore] if self._ignore else [])]
        for z, planes in read_slices([layer.array for layer in layers], self._slices):
            labels = np.stack(
                [
                    plane if layer.slices is None or z in layer.slices else _unlabelled(plane)
                    for layer, plane in zip(self._labels, planes, strict=False)
                ],
                -1,
            )
            if self._ignore is not None:
                labels[planes[-1] == 1] = UNLABELLED
            yield reflect_pad(labels[None], self._short)[0]

    def __call__(self, crops: Crops) -> Planes:
        """The windows of crops, `[b, crop, crop]` in host memory.

        Raises:
          InputError: a slice on disk is damaged.
        """
        layers = [self._image, *self._labels, *([self._ignore] if self._ignore else [])]
        with ts.Batch() as batch:
            waiting = [
                [self._begin(layer, *where, batch) for where in _each(crops)] for layer in layers
            ]
        image, *masks = [
            np.stack([self._end(layer, *one) for one in each])
            for layer, each in zip(layers, waiting, strict=True)
        ]
        ignored = masks.pop() if self._ignore is not None else None
        label = np.stack(masks, -1) if masks else None
        if label is not None and ignored is not None:
            label[ignored == 1] = UNLABELLED
        return self._reduce(Planes(image, label, ignored))

    def _begin(self, layer: _Layer, plane: int, y: int, x: int, batch: ts.Batch) -> tuple[int, Any]:
        """Slice and future of a window; no future where the slice does not count."""
        z = self._slices[plane]
        if layer.slices is not None and z not in layer.slices:
            return z, None
        rows, columns = (
            slice(None) if short else slice(start, start + self.window)
            for start, short in zip((y, x), self._short, strict=True)
        )
        return z, layer.array[z, rows, columns].read(batch=batch)

    def _end(self, layer: _Layer, z: int, future: ts.Future | None) -> np.ndarray:
        if future is None:
            return np.full((self.window, self.window), UNLABELLED, np.uint8)
        return reflect_pad(plane_of(future, layer.array, z)[None], self._short)[0]

    def _reduce(self, planes: Planes) -> Planes:
        if not self._reduced:
            return planes
        # As floats, the means of four pixels stay what they are: the reference does not round.
        image = downsample_image(planes.image.astype(np.float32))
        label = None
        if planes.label is not None:
            stacked = np.moveaxis(planes.label, -1, 0)
            label = downsample_label(stacked)
            label = np.moveaxis(label, 0, -1)
        ignored = None if planes.ignored is None else downsample_ignore(planes.ignored)
        return Planes(image, label, ignored)


def _each(crops: Crops) -> Iterator[tuple[int, int, int]]:
    for plane, (y, x) in zip(crops.plane, crops.corner, strict=True):
        yield int(plane), int(y), int(x)


def _unlabelled(plane: np.ndarray) -> np.ndarray:
    return np.full_like(plane, UNLABELLED)


def whole(crops: Crops) -> Crops:
    """The crops that take each of b windows whole, with the symmetries of `crops`."""
    b = len(crops.plane)
    return Crops(np.arange(b, dtype=np.int32), np.zeros((b, 2), np.int32), crops.symmetry)


def planes_bytes(volume: Volume, slices: int, structures: int, *, crop_size: int) -> int:
    """What so many slices take at training scale, with labels and ignore mask, padded to a crop."""
    h, w = (max(side, crop_size) for side in volume.plane_shape(TRAINING))
    return slices * h * w * (volume.dtype.itemsize + structures + int(volume.has_ignore))
