"""Progress on the terminal; plain lines where there is none."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_SECONDS = 10.0

Item = TypeVar("Item")


def clock(seconds: float) -> str:
    """`h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def track(items: Iterable[Item], *, total: int, what: str, unit: str) -> Iterator[Item]:
    """Yields the items and shows how far they are, how fast, and how long it will take."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit)
        return
    start = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= LINE_SECONDS or done == total:
            shown, rate = now, done / max(now - start, 1e-9)
            print(
                f"{what}: {done}/{total} {unit}s, {100 * done // max(total, 1)} %, "
                f"{rate:.3g} {unit}s/s, {clock((total - done) / rate)} left",
                file=sys.stderr,
                flush=True,
            )


class Meter:
    """Throughput of the steps alone: compilation, validation and saving are left out."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps, self._seconds = 0, 0.0
        self._mark: float | None = None
        self._start, self._first = time.monotonic(), (1, 1.0)

    def add(self, steps: int) -> None:
        """Counts steps that have just finished; the first lot, which compiled, is a stopgap."""
        now = time.monotonic()
        if self._mark is None:
            self._first = (steps, now - self._start)
        else:
            self._steps += steps
            self._seconds += now - self._mark
        self._mark = now

    def pause(self) -> None:
        """Leaves out the time since the last steps."""
        self._mark = time.monotonic()

    def _seconds_per_step(self) -> float:
        steps, seconds = (self._steps, self._seconds) if self._steps else self._first
        return max(seconds, 1e-9) / max(steps, 1)

    def rate(self) -> float:
        """Crops per second."""
        return self._batch_size / self._seconds_per_step()

    def left(self, steps: int) -> float:
        """Seconds that so many steps will take."""
        return steps * self._seconds_per_step()
