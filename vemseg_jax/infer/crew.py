"""Tasks for workers of dask that come, go and come back: as many as they can take, no more."""

import logging
import queue
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from vemseg_jax.errors import InputError

# Tasks a worker thread that are with the scheduler at a time; coordinates only, but each is work
# that a lost scheduler forgets.
TASKS_A_THREAD = 2
# How often the scheduler is asked how many threads there are.
ASK_SECONDS = 0.5
# How long a scheduler that has gone may take to come back.
LOST_SECONDS = 30


def finished(client: Any, submit: Callable[[str], Any], keys: Sequence[str]) -> Iterator[Any]:
    """Submits tasks and yields their futures, in the order in which they finish.

    `TASKS_A_THREAD` for each thread of the workers are with the scheduler: those that come later
    get theirs as soon as they are there. What a worker leaves undone goes to another.

    Args:
      client: a `distributed.Client`.
      submit: takes a key, gives a future.
      keys: of the tasks.

    Raises:
      InputError: the scheduler has gone.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    remaining = iter(keys)
    # Held here: the scheduler forgets a task whose future nobody has.
    waiting: set[Any] = set()
    threads = _Threads(client)
    while True:
        for key in islice(remaining, max(TASKS_A_THREAD * max(threads(), 1) - len(waiting), 0)):
            future = submit(key)
            waiting.add(future)
            future.add_done_callback(done.put)
        if not waiting:
            return
        try:
            future = done.get(timeout=ASK_SECONDS)
        except queue.Empty:
            continue
        waiting.remove(future)
        yield future


def failure(future: Any) -> BaseException | None:
    """What became of a finished future's task; None if it is well.

    Raises:
      InputError: nobody knows: the scheduler has gone.
    """
    if future.status in ("cancelled", "lost"):
        raise _gone()
    return future.exception()


def _gone() -> InputError:
    return InputError(
        "the dask scheduler has gone; finished blocks are kept; start it and run the command again"
    )


class _Threads:
    """How many threads the workers have, asked now and then; says when there are none."""

    def __init__(self, client: Any):
        self._client, self._asked, self._count = client, -float("inf"), -1
        self._seen = time.monotonic()

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._look(now)
        return max(self._count, 0)

    def _look(self, now: float) -> None:
        if self._client.status != "running":
            if now - self._seen > LOST_SECONDS:
                raise _gone()
            return
        try:
            workers = self._client.nthreads()
        except (OSError, TimeoutError):
            return
        self._seen = now
        count = sum(workers.values())
        if self._count < 0 or (count == 0) != (self._count == 0):
            print(
                f"workers     {len(workers)}" + ("" if count else ", waiting for them"), flush=True
            )
        self._count = count


def shield(client: Any, worker_plugin: type) -> None:
    """Lets the workers of this process's own cluster end with it, without a word.

    Ctrl-C in a terminal reaches them too, and each would tell of it at length.

    Args:
      client: of that cluster.
      worker_plugin: `distributed.WorkerPlugin`.
    """

    class Shield(worker_plugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            logging.getLogger("distributed.worker.memory").setLevel(logging.WARNING)

    client.register_plugin(Shield(), name="shield")


@contextmanager
def quiet_end() -> Iterator[None]:
    """Where the block is interrupted, workers that are cut short are not told of."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        # It has a level of its own where its package was set up with one.
        logging.getLogger("distributed.nanny").setLevel(logging.CRITICAL)
        raise
