"""Ctrl-C and SIGTERM in the binaries: the first ends them in order, the second at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vemseg_jax import commands

INTERRUPTED_STATUS = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a terminal or a launcher sends twice at once counts as one.
ECHO_SECONDS = 0.1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def in_order() -> Iterator[None]:
    """While the block runs SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

    A second one of either ends the process at once, with status 130, also where the first has not
    been seen yet: the compiler and other libraries keep Python from seeing it until they are done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    # Whoever took or ignored it had a reason.
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    read, write = os.pipe()
    os.set_blocking(write, False)
    other = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), daemon=True, name="interrupts").start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(other)
        # The watch ends with the pipe.
        os.close(write)
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def _watch(pipe: int) -> None:
    first = None
    while numbers := os.read(pipe, 64):
        for number in numbers:
            if number not in SIGNALS:
                continue
            if first is None:
                first = time.monotonic()
            elif time.monotonic() - first > ECHO_SECONDS:
                os.write(2, b"stopped at once\n")
                os._exit(INTERRUPTED_STATUS)
    os.close(pipe)


def command() -> str:
    """What the user typed, to type it again."""
    name, *arguments = sys.argv
    first = commands.program(Path(name).name)
    if name.endswith(".py"):
        # Started by `python -m`.
        first, arguments = commands.quoted(commands.shown(sys.executable)), sys.orig_argv[1:]
    return " ".join([first, *map(commands.quoted, arguments)])
