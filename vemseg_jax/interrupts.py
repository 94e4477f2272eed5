"""Ctrl-C and SIGTERM: work that can be gone on with ends where it can, not where it is."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a terminal or a launcher sends twice at once counts as one.
ECHO_SECONDS = 0.1

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """Work has ended because somebody asked for it; the text says what is kept."""


class Abandoned(Exception):
    """Work that is done anew when the run goes on was left."""


class StopRequest:
    """Takes Ctrl-C and SIGTERM for a run: raised until `defer`, then noted; a context manager.

    Outside of the main thread, and where signals are ignored (as `nohup` does), it changes nothing.
    Several processes that train together stop at the same step, whichever of them was asked.

    Attributes:
      asked: whether this process was asked to stop.
    """

    def __init__(self, notice: str = ""):
        """`notice` is said at once when the run is asked to stop."""
        self.asked = False
        self._notice, self._deferring, self._since = notice, False, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.getsignal(number)
                    if not (self._several() and number == signal.SIGTERM):
                        signal.signal(number, self._take)
        if self._several():
            # One process that leaves alone would leave the others waiting for it.
            self._deferring = True
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            if not (self._several() and number == signal.SIGTERM):
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()

    @staticmethod
    def _several() -> bool:
        return jax.process_count() > 1

    def _take(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        now = time.monotonic()
        if not self._deferring:
            raise KeyboardInterrupt
        if self.asked:
            if now - self._since > ECHO_SECONDS:
                raise KeyboardInterrupt
            return
        self.asked, self._since = True, now
        # Not by print: the interrupt may have come in the middle of one.
        if self._notice:
            os.write(2, f"{self._notice}\n".encode())
        if self._several():
            # jax takes this one, and tells the other processes.
            os.kill(os.getpid(), signal.SIGTERM)

    def defer(self) -> None:
        """From now on an interrupt is noted."""
        self._deferring = True

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; every process of a run asks after the same steps."""
        if self._several():
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.asked

    def leaving(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until the run is asked to stop.

        Raises:
          Abandoned: it was.
        """
        for item in items:
            if self.asked and self._deferring and not self._several():
                raise Abandoned
            yield item
