"""Where the batches of a run come from: slices held on the device, or read ahead from disk."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from vemseg_jax.data.input_pipeline import Planes
from vemseg_jax.data.sampling import Crops
from vemseg_jax.data.windows import WindowReader, whole

# Batches that are read while the device works on the one before.
PREFETCH = 3

Sampler = Callable[[int], Crops]


class Source(Protocol):
    """From the number of a step to slices on the device and what to cut from them."""

    streamed: bool

    def __call__(self, step: int) -> tuple[Planes, Crops]:
        """Slices and crops of a step, the same whenever they are asked for."""
        ...

    def close(self) -> None:
        """Ends what works in the background."""
        ...


class Resident:
    """Slices that stay on the device for the whole run."""

    streamed = False

    def __init__(self, planes: Planes, sampler: Sampler):
        # Labels serve the sampler on the host as well; here all of it goes to the device.
        self._planes, self._sampler = jax.device_put(planes), sampler

    def __call__(self, step: int) -> tuple[Planes, Crops]:
        """All slices, and the crops of the step."""
        return self._planes, self._sampler(step)

    def close(self) -> None:
        """Nothing to end."""


class Streamed:
    """Crops read from disk, a few steps ahead, and put on the device."""

    streamed = True

    def __init__(self, reader: WindowReader, sampler: Sampler, *, steps: int):
        """`steps` is the end of the run: nothing beyond it is read."""
        self._reader, self._sampler, self._steps = reader, sampler, steps
        self._pool = ThreadPoolExecutor(PREFETCH, thread_name_prefix="crops")
        self._waiting: dict[int, Future[tuple[Planes, Crops]]] = {}

    def _read(self, step: int) -> tuple[Planes, Crops]:
        crops = self._sampler(step)
        return jax.device_put((self._reader(crops), whole(crops)))

    def __call__(self, step: int) -> tuple[Planes, Crops]:
        """The crops of the step as slices; those of the next steps are begun.

        Raises:
          InputError: a slice on disk is damaged.
        """
        wanted = range(step, min(step + PREFETCH + 1, max(self._steps, step + 1)))
        for number in [n for n in self._waiting if n not in wanted]:
            self._waiting.pop(number).cancel()
        for number in wanted:
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(self._read, number)
        return self._waiting.pop(step).result()

    def close(self) -> None:
        """Drops what was begun and ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Batches:
    """What the steps of a run take beside the state; a context manager.

    With one source, its slices and crops; with several, a tuple of the slices and one of the
    crops.
    """

    def __init__(self, sources: Sequence[Source]):
        self._sources = tuple(sources)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        for source in self._sources:
            source.close()

    @property
    def streamed(self) -> bool:
        """Whether any source reads from disk, so that slices differ from step to step."""
        return any(source.streamed for source in self._sources)

    def __call__(self, step: int) -> tuple[Any, Any]:
        """Slices and crops of one step."""
        planes, crops = zip(*(source(step) for source in self._sources), strict=True)
        return (planes, crops) if len(planes) > 1 else (planes[0], crops[0])

    def stacked(self, step: int, count: int) -> tuple[Any, Any]:
        """Slices, and the crops of `count` steps on a leading axis; not of streamed crops."""
        planes, first = self(step)
        crops = [first, *(self(number)[1] for number in range(step + 1, step + count))]
        return planes, jax.tree.map(lambda *each: np.stack(each), *crops)
