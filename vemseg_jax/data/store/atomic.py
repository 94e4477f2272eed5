"""Directories that appear whole or not at all."""

import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: without the lock two writers of one output are not kept apart.
    fcntl = None  # type: ignore[assignment]


def lock(path: Path, *, wait: bool) -> int | None:
    """Takes an exclusive lock on an existing file or directory; `unlock` frees it.

    The lock dies with the process and moves with what is renamed. None where the file system has
    no locks.

    Raises:
      BlockingIOError: another process holds it and `wait` is false.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def unlock(taken: int | None) -> None:
    """Frees what `lock` returned."""
    if taken is not None:
        os.close(taken)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # Writing to a full disk names no file by itself.
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_lines(path: Path) -> tuple[list[Any], int]:
    """The whole JSON lines of a file, and how many bytes they take; what follows was cut short.

    Raises:
      InputError: a line is no JSON.
    """
    entries, whole = [], 0
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise InputError(
                    f"{path}: line {len(entries) + 1} is damaged; remove it to lose only what it"
                    " tells of"
                ) from error
            whole += len(line)
    return entries, whole


class Journal:
    """A file of JSON lines that survives a process that dies: whole lines or none.

    Attributes:
      entries: those that were there when it was opened.
    """

    def __init__(self, path: Path, *, sync: bool = False):
        """Opens or creates it; with `sync` a line that was added outlives a power failure too."""
        self._lock, self._sync = threading.Lock(), sync
        self.entries, whole = read_lines(path)
        self._file = open(path, "ab")  # noqa: SIM115
        self._file.truncate(whole)

    def add(self, entry: Any) -> None:
        """Adds a line; from several threads if that helps."""
        with self._lock:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            if self._sync:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def remove(path: Path) -> None:
    """Removes a directory, if it is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def _replaced(final: Path) -> Path:
    """Where what is replaced stands between the two renames of `put_in_place`."""
    return final.with_name(f".{final.name}.replaced")


def put_in_place(partial: Path, final: Path) -> None:
    """Renames a finished directory; `clear_replaced` removes what stood there."""
    if final.exists():
        final.rename(_replaced(final))
    partial.rename(final)


def clear_replaced(final: Path) -> None:
    """After `put_in_place`, or before the next one if the process died within it.

    What stood at `final` is removed, or put back if nothing took its place.
    """
    old = _replaced(final)
    if old.exists():
        if final.exists():
            remove(old)
        else:
            old.rename(final)


class AtomicDirectory:
    """A directory written under another name and renamed when it is complete.

    What stands at `final` stays readable until `commit`. A process that dies leaves `partial`,
    which the next writer of the same output removes; two writers at once are kept apart by a
    lock on it.

    With a resume key, which must stand for everything the content follows from, `partial` outlives
    an exception too, and the next writer with the same key goes on with it; one with another key,
    or none, removes it.

    Attributes:
      partial: where to write until `commit`.
      removed_stale: an unfinished directory of an earlier run was there and was removed.
      resumed: one with the same key was there and was kept.
      notes: with a resume key, a folder for what the next run must know; not part of the result.

    Raises:
      InputError: another process is writing the same output, or it cannot be created.
    """

    def __init__(self, final: Path, *, partial: Path, resume_key: str | None = None):
        self.final, self.partial = final, partial
        self.notes = partial / ".resume"
        self._resumable = resume_key is not None
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            existed = partial.exists()
            partial.mkdir(exist_ok=True)
            self._lock = lock(partial, wait=False)
            if self._lock is not None and not os.path.samestat(
                os.fstat(self._lock), os.stat(partial)
            ):
                raise BlockingIOError
            clear_replaced(final)
            self.resumed = self._resumable and self._read_key() == resume_key
            self.removed_stale = existed and not self.resumed
            if not self.resumed:
                self._clear()
                if self._resumable:
                    # Written before anything else, so no content ever stands under another key.
                    self.notes.mkdir()
                    write_json(self.notes / "key.json", {"key": resume_key})
        except BlockingIOError:
            raise InputError(
                f"{final}: another process is writing it; wait for it or choose another output"
            ) from None
        except OSError as error:
            raise InputError(
                f"{final}: cannot be written: {reason(error, writing=True)}"
            ) from error

    def _read_key(self) -> str | None:
        try:
            return json.loads((self.notes / "key.json").read_text(encoding="utf-8"))["key"]
        except FileNotFoundError:
            return None

    def _clear(self) -> None:
        # The key goes first: what a death in between leaves belongs to no run.
        remove(self.notes)
        for entry in list(self.partial.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def commit(self) -> None:
        """Puts the directory in its place; what stood there is removed."""
        put_in_place(self.partial, self.final)
        remove(self.final / self.notes.name)
        self._unlock()
        clear_replaced(self.final)

    def abandon(self) -> None:
        """Removes what was written, or with a resume key leaves it to the next run.

        What stands at `final` is untouched.
        """
        if not self._resumable:
            remove(self.partial)
        self._unlock()

    def _unlock(self) -> None:
        unlock(self._lock)
        self._lock = None
