"""Large pages of memory for what XLA allocates in every step on a CPU."""

import os
import platform
import signal
import sys
from pathlib import Path

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
# The first glibc whose malloc can ask for them.
_GLIBC = (2, 35)


def restart_with_huge_pages() -> None:
    """Starts this program once more, with glibc's malloc asking for huge pages.

    XLA takes one buffer for all intermediate maps of a step and gives it back after the step, so
    each step touches it anew, page by page: a fifth to a third of the time of a training step on a
    CPU with pages of 4 KiB (`benchmarks/train_time.py`). malloc reads its settings when a process
    starts, hence the restart; call this before jax is imported, while there is nothing to lose.

    Does nothing where that would not help (not Linux, a glibc before 2.35, a system that gives
    huge pages to all or to nobody), where `GLIBC_TUNABLES` is set already, and once jax is there.
    """
    # Blocked by the program that was before the restart.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    if _TUNABLES in os.environ or "jax" in sys.modules or not _given_on_request():
        return
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    sys.stdout.flush()
    # An interrupt waits until the program is there again to take it.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _given_on_request() -> bool:
    name, version = platform.libc_ver()
    if sys.platform != "linux" or name != "glibc":
        return False
    try:
        setting = _SETTING.read_text()
    except OSError:
        return False
    return tuple(int(n) for n in version.split(".")[:2]) >= _GLIBC and "[madvise]" in setting
