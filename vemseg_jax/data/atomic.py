"""Directories that appear whole or not at all."""

import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from vemseg_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: without the lock two writers of one output are not kept apart.
    fcntl = None  # type: ignore[assignment]


def lock_directory(path: Path, *, wait: bool) -> int | None:
    """Takes an exclusive lock on an existing directory; `unlock_directory` frees it.

    The lock dies with the process and moves with the directory when that is renamed. None
    where the file system has no locks.

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


def unlock_directory(lock: int | None) -> None:
    """Frees what `lock_directory` returned."""
    if lock is not None:
        os.close(lock)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class Journal:
    """A file of JSON lines that survives a process that dies: whole lines or none.

    Attributes:
      entries: those that were there when it was opened.
    """

    def __init__(self, path: Path):
        self.entries: list[Any] = []
        self._lock = threading.Lock()
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self.entries.append(json.loads(line))
                whole += len(line)
        self._file = open(path, "ab")  # noqa: SIM115
        self._file.truncate(whole)

    def add(self, entry: Any) -> None:
        """Adds a line; from several threads if that helps."""
        with self._lock:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


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
        # Stands there only between the two renames of `commit`.
        self._replaced = final.with_name(f".{final.name}.replaced")
        self._resumable = resume_key is not None
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            existed = partial.exists()
            partial.mkdir(exist_ok=True)
            self._lock = lock_directory(partial, wait=False)
            if self._lock is not None and not os.path.samestat(
                os.fstat(self._lock), os.stat(partial)
            ):
                raise BlockingIOError
            self._recover()
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
                f"{final}: cannot be written ({error.strerror or error}); choose a folder with"
                " room where files may be created"
            ) from error

    def _read_key(self) -> str | None:
        try:
            return json.loads((self.notes / "key.json").read_text(encoding="utf-8"))["key"]
        except FileNotFoundError:
            return None

    def _clear(self) -> None:
        # The key goes first: what a death in between leaves belongs to no run.
        _remove(self.notes)
        for entry in list(self.partial.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _recover(self) -> None:
        if self._replaced.exists():
            if self.final.exists():
                _remove(self._replaced)
            else:
                self._replaced.rename(self.final)

    def commit(self) -> None:
        """Puts the directory in its place; what stood there is removed."""
        if self.final.exists():
            self.final.rename(self._replaced)
        self.partial.rename(self.final)
        _remove(self.final / self.notes.name)
        self._unlock()
        _remove(self._replaced)

    def abandon(self) -> None:
        """Removes what was written, or with a resume key leaves it to the next run.

        What stands at `final` is untouched.
        """
        if not self._resumable:
            _remove(self.partial)
        self._unlock()

    def _unlock(self) -> None:
        unlock_directory(self._lock)
        self._lock = None
