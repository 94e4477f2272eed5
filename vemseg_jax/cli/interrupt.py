"""Ctrl-C and SIGTERM in the binaries: the first ends them in order, the second at once."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from vemseg_jax import commands

INTERRUPTED_STATUS = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a terminal or a launcher sends twice at once counts as one.
ECHO_SECONDS = 0.1


def is_command() -> bool:
    """Whether this process is one of the binaries, not one that imports them."""
    # "vemseg", "vemseg-train", or what `main` makes of `vemseg train`.
    return re.split("[- ]", Path(sys.argv[0]).name)[0] == commands.ENTRY or (
        # So it is while `python -m` imports what its module is in.
        (sys.argv[0] == "-m" or sys.argv[0].endswith(".py"))
        and any(argument.startswith("vemseg_jax.cli.") for argument in sys.orig_argv[1:])
    )


def from_the_start() -> None:
    """Ends a binary in one line also where it is interrupted before it has come to anything."""
    if not is_command():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    hook = sys.excepthook

    def quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            end("interrupted before anything was done")
        hook(kind, error, trace)

    sys.excepthook = quiet
    if hasattr(signal, "pthread_sigmask"):
        # Blocked by a restart, see `huge_pages`.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end(text: str) -> NoReturn:
    """Says what is kept and how to go on, and ends the process."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        print(f"{text}; to continue: {command()}", file=sys.stderr, flush=True)
    if is_command() and not _is_one_of_several():
        # What a normal end waits for, and says, serves nobody any more.
        os._exit(INTERRUPTED_STATUS)
    sys.exit(INTERRUPTED_STATUS)


def _is_one_of_several() -> bool:
    """Whether other processes, which train with this one, wait for it to take its leave."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


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
    taken = before in (signal.SIG_DFL, _interrupt)
    if taken:
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
        if taken:
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
    first = commands.program(Path(name).name.replace(" ", "-", 1))
    if name == "-m" or name.endswith(".py"):
        # Started by `python -m`.
        first, arguments = commands.quoted(commands.shown(sys.executable)), sys.orig_argv[1:]
    return " ".join([first, *map(commands.quoted, arguments)])
