"""Where the batches of a run come from: slices held on the device, or read ahead from disk."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from vemseg_jax.data.crops.disk_reader import WindowReader, whole
from vemseg_jax.data.crops.input_pipeline import Planes
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.parallel import Placement

# Batches that are read while the device works on the one before.
PREFETCH = 3

Sampler = Callable[[int], Crops]


class Source(Protocol):
    """From the number of a step to slices on the device and what to cut from them."""

    streamed: bool

    def __call__(self, step: int) -> tuple[Any, Any]:
        """Slices and crops of a step, the same whenever they are asked for."""
        ...

    def stacked(self, step: int, count: int) -> tuple[Any, Any]:
        """Slices, and the crops of `count` steps on a leading axis; not of streamed crops."""
        ...

    def close(self) -> None:
        """Ends what works in the background."""
        ...


class Resident:
    """Slices that stay on the device for the whole run."""

    streamed = False

    def __init__(self, planes: Planes, sampler: Sampler, placement: Placement):
        # Labels serve the sampler on the host as well; here all of it goes to the device.
        self._planes, self._sampler = placement.whole(planes), sampler
        self._placement = placement

    def __call__(self, step: int) -> tuple[Planes, Crops]:
        """All slices, and the crops of the step."""
        return self._planes, self._placement.split(self._sampler(step))

    def stacked(self, step: int, count: int) -> tuple[Planes, Crops]:
        """All slices, and the crops of `count` steps on a leading axis."""
        crops = [self._sampler(number) for number in range(step, step + count)]
        joined = jax.tree.map(lambda *each: np.stack(each), *crops)
        return self._planes, self._placement.split(joined, axis=1)

    def close(self) -> None:
        """Nothing to end."""


class Streamed:
    """Reads crops from disk in advance and puts them on the device."""

    streamed = True

    def __init__(self, reader: WindowReader, sampler: Sampler, placement: Placement, *, steps: int):
        """`steps` is the end of the run: nothing beyond it is read."""
        self._placement = placement
        self._reader, self._sampler, self._steps = reader, sampler, steps
        self._pool = ThreadPoolExecutor(PREFETCH, thread_name_prefix="crops")
        self._waiting: dict[int, Future[tuple[Planes, Crops]]] = {}

    def _read(self, step: int) -> tuple[Planes, Crops]:
        crops = self._sampler(step)
        own = self._placement.rows(len(crops.plane))
        here = self._reader(jax.tree.map(lambda x: x[own], crops))
        return self._placement.join((here, jax.tree.map(lambda x: x[own], whole(crops))))

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

    def stacked(self, step: int, count: int) -> tuple[Any, Any]:
        """Not to be had: slices differ from step to step."""
        raise ValueError("crops that are read as training goes come one step at a time")

    def close(self) -> None:
        """Drops what was begun and ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Joined:
    """Crops of several volumes: a tuple of the slices and one of the crops."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = tuple(sources)
        self.streamed = any(source.streamed for source in sources)

    def __call__(self, step: int) -> tuple[Any, Any]:
        """Slices and crops of a step, by volume."""
        planes, crops = zip(*(source(step) for source in self._sources), strict=True)
        return planes, crops

    def stacked(self, step: int, count: int) -> tuple[Any, Any]:
        """Slices, and the crops of `count` steps on a leading axis, by volume."""
        found = [source.stacked(step, count) for source in self._sources]
        planes, crops = zip(*found, strict=True)
        return planes, crops

    def close(self) -> None:
        """Closes each."""
        for source in self._sources:
            source.close()


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
        found = [source.stacked(step, count) for source in self._sources]
        planes, crops = zip(*found, strict=True)
        return (planes, crops) if len(planes) > 1 else (planes[0], crops[0])
