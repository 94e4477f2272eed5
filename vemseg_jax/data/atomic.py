"""Directories that appear whole or not at all."""

import json
import os
import shutil
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


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


class AtomicDirectory:
    """A directory written under another name and renamed when it is complete.

    What stands at `final` stays readable until `commit`. A process that dies leaves `partial`,
    which the next writer of the same output removes; two writers at once are kept apart by a
    lock on it.

    Attributes:
      partial: where to write until `commit`.
      removed_stale: an unfinished directory of an earlier run was there and was removed.

    Raises:
      InputError: another process is writing the same output, or it cannot be created.
    """

    def __init__(self, final: Path, *, partial: Path):
        self.final, self.partial = final, partial
        # Stands there only between the two renames of `commit`.
        self._replaced = final.with_name(f".{final.name}.replaced")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            self.removed_stale = partial.exists()
            partial.mkdir(exist_ok=True)
            self._lock = lock_directory(partial, wait=False)
            if self._lock is not None and not os.path.samestat(
                os.fstat(self._lock), os.stat(partial)
            ):
                raise BlockingIOError
            self._recover()
            for entry in list(partial.iterdir()):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except BlockingIOError:
            raise InputError(
                f"{final}: another process is writing it; wait for it or choose another output"
            ) from None
        except OSError as error:
            raise InputError(
                f"{final}: cannot be written ({error.strerror or error}); choose a folder with"
                " room where files may be created"
            ) from error

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
        self._unlock()
        _remove(self._replaced)

    def abandon(self) -> None:
        """Removes what was written; what stands at `final` is untouched."""
        _remove(self.partial)
        self._unlock()

    def _unlock(self) -> None:
        unlock_directory(self._lock)
        self._lock = None
