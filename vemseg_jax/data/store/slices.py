"""Reading slices of a volume ahead of their use."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError

PREFETCH = 3


def read_slices(
    arrays: Sequence[ts.TensorStore], zs: Sequence[int]
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yields (z, one plane `[h, w]` an array) in order, reading `PREFETCH` slices ahead.

    Raises:
      InputError: a slice on disk is damaged.
    """
    waiting: collections.deque[tuple[int, list[ts.Future]]] = collections.deque()
    for z in (*zs, *[None] * PREFETCH):
        if z is not None:
            waiting.append((z, [array[z].read() for array in arrays]))
        if waiting and (z is None or len(waiting) > PREFETCH):
            ready, futures = waiting.popleft()
            yield ready, [plane_of(f, a, ready) for f, a in zip(futures, arrays, strict=True)]


def read_plane(array: ts.TensorStore, z: int) -> np.ndarray:
    """Slice `z` of an array `[z, y, x]`.

    Raises:
      InputError: it is damaged on disk, or cannot be read for another reason.
    """
    return plane_of(array[z].read(), array, z)


def plane_of(future: ts.Future, array: ts.TensorStore, z: int) -> np.ndarray:
    """What was read of slice `z` of an array.

    Raises:
      InputError: the slice on disk is damaged, or cannot be read for another reason.
    """
    try:
        return np.asarray(future.result())
    except (ValueError, OSError) as error:
        path = array.spec().to_json()["kvstore"]["path"]
        why = reason(error, damaged="")
        if why:
            raise InputError(f"{path}: slice {z}: {why}") from error
        raise InputError(
            f"{path}: slice {z} is damaged; write this image or label again"
        ) from error
