"""Work on many slices at once, in order and with few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Slices that are read, decoded and written at once; memory grows with it.
WORKERS = 3
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_flight(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Calls `function` on every item in a few threads; yields what it returns, in order.

    No more items are begun than there are threads, and none after an exception.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        running: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(running) == WORKERS:
                    yield running.popleft().result()
                running.append(pool.submit(function, item))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
