"""Reading a piece of a volume at any reduction, from the level that costs least."""

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store.downsample import FACTOR

CACHE_BYTES = 1 << 30


def cached(array: ts.TensorStore, context: ts.Context) -> ts.TensorStore:
    """The same array, its decoded chunks kept in the cache of `context`."""
    return ts.open(array.spec(), context=context, open=True, read=True).result()


def cache() -> ts.Context:
    """A cache of 1 GiB, for all arrays of a viewer: neighbouring pieces share chunks on disk."""
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})


class Pyramid:
    """An array `[z, y, x]` that can be read reduced along each axis; nothing is read before.

    Pixel `i` of a reduction by `f` covers the pixels `f * i` to `f * i + f - 1`. Along y and x
    they are averaged, or of labels the middle one is taken. Slices are never mixed: of `f` of
    them the first is shown. Reductions of 4 or more along y or x read the training level, whose
    pixel `i` is the mean of pixels `4i + 1` and `4i + 2`, so that it lies where a reduction by 4
    belongs; an axis that is reduced by less, as in sections across the slices, repeats its pixels.

    Attributes:
      shape: zyx of the finest level.
      dtype: of the values.
    """

    def __init__(self, fine: ts.TensorStore, training: ts.TensorStore | None, *, average: bool):
        """Wraps open arrays.

        Args:
          fine: `[z, y, x]`, the finest level.
          training: `[z, (y + 1) // 4, (x + 1) // 4]`, or None where there is one level only.
          average: for grey values and probabilities; labels are not averaged.
        """
        self._fine, self._training, self._average = fine, training, average
        self.shape: tuple[int, ...] = tuple(int(n) for n in fine.shape)
        self.dtype = np.dtype(fine.dtype.numpy_dtype)

    def reduced_shape(self, factors: tuple[int, int, int]) -> tuple[int, ...]:
        """Size zyx after a reduction; a remainder at the end counts as a pixel."""
        return tuple(-(-n // f) for n, f in zip(self.shape, factors, strict=True))

    def read(
        self,
        start: tuple[int, int, int],
        stop: tuple[int, int, int],
        *,
        factors: tuple[int, int, int],
    ) -> np.ndarray:
        """The box from `start` to `stop` (not included), both zyx in reduced pixels.

        Returns:
          `[z, y, x]` of the array's dtype.

        Raises:
          ValueError: factors that are no powers of two, a box outside the array, or pixels that
            cannot be read.
        """
        if any(f < 1 or f & (f - 1) for f in factors):
            raise ValueError(f"reduction by {factors}; powers of two are needed")
        reduced = self.reduced_shape(factors)
        if any(not 0 <= a < b <= n for a, b, n in zip(start, stop, reduced, strict=True)):
            raise ValueError(f"box {start} to {stop} of {reduced} at a reduction by {factors}")
        array, step = self._fine, 1
        if self._training is not None and max(factors[1:]) >= FACTOR:
            array, step = self._training, FACTOR
        z = slice(start[0] * factors[0], min(stop[0] * factors[0], self.shape[0]), factors[0])
        y, x = (
            self._axis(start[axis], stop[axis], factors[axis], step, int(array.shape[axis]))
            for axis in (1, 2)
        )
        box = np.asarray(array[z, y[0] : y[-1] + 1, x[0] : x[-1] + 1].read().result())
        box = box[:, y - y[0]][:, :, x - x[0]]
        return self._reduce(box, max(factors[1] // step, 1), max(factors[2] // step, 1))

    @staticmethod
    def _axis(start: int, stop: int, factor: int, step: int, size: int) -> np.ndarray:
        """Indices into a level `step` times coarser: `factor // step`, or one, per pixel."""
        if factor < step:
            index = np.arange(start, stop) * factor // step
        else:
            index = np.arange(start * (factor // step), stop * (factor // step))
        return np.minimum(index, size - 1)

    def _reduce(self, box: np.ndarray, fy: int, fx: int) -> np.ndarray:
        if fy == fx == 1:
            return box
        if not self._average:
            return box[:, fy // 2 :: fy, fx // 2 :: fx]
        z, h, w = box.shape
        blocks = box.reshape(z, h // fy, fy, w // fx, fx)
        mean = blocks.mean(axis=(2, 4), dtype=np.float32)
        return np.rint(mean).astype(self.dtype) if self.dtype.kind == "u" else mean
