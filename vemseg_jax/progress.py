"""Progress on the terminal; plain lines where there is none."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from vemseg_jax.units import figures

LINE_SECONDS = 10.0

Item = TypeVar("Item")


def clock(seconds: float) -> str:
    """`h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def track(
    items: Iterable[Item],
    *,
    total: int,
    what: str,
    unit: str,
    size: Callable[[Item], float] = lambda _: 1,
) -> Iterator[Item]:
    """Yields the items and shows how far they are, how fast, and how long it will take.

    Args:
      items: what is worked on.
      total: units of all of them together.
      what: the work, such as "predicting".
      unit: what is counted, such as "slice".
      size: how many units an item is; may be a part of one.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit) as bar:
            whole = 0.0
            for item in items:
                yield item
                whole += size(item)
                bar.update(round(whole) - bar.n)
        return
    start = shown = time.monotonic()
    done = 0.0
    for item in items:
        yield item
        done += size(item)
        now, last = time.monotonic(), done >= total - 1e-6
        if now - shown >= LINE_SECONDS or last:
            shown, seconds = now, max(now - start, 1e-9)
            left = 0.0 if last else (total - done) * seconds / max(done, 1e-9)
            print(
                f"{what}: {round(done)}/{total} {unit}s, {100 * round(done) // max(total, 1)} %, "
                f"{_rate(done / seconds, unit)}, {clock(left)} left",
                file=sys.stderr,
                flush=True,
            )


def _rate(rate: float, unit: str) -> str:
    """`4.6 slices/s`, or where it is slower `13 s a slice`."""
    if rate >= 1:
        return f"{figures(rate)} {unit}s/s"
    seconds = 1 / max(rate, 1e-9)
    text = f"{figures(seconds)} s" if seconds < 60 else clock(seconds)
    return f"{text} a {unit}"


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
