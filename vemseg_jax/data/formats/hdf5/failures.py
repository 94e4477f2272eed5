"""Why an HDF5 file cannot be opened: in use, not closed, without locks, or damaged."""

import errno
import re
from pathlib import Path
from typing import Any

import h5py

from vemseg_jax.data.store.failures import os_code, reason

# A file system without locks: no program can hold one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_LOCK = "unable to lock file"
_LOCK_CODE = re.compile(r"errno = (\d+)")
_TRUNCATED = re.compile(r"truncated file: eof = (\d+), .*stored_eof = (\d+)")


def open_file(file: Path, **options: Any) -> h5py.File:
    """Opens a file to read; without a lock where the file system has none."""
    try:
        return h5py.File(file, "r", **options)
    except OSError as error:
        if _lock_code(error) not in _NO_LOCKS:
            raise
    return h5py.File(file, "r", locking=False, **options)


def why(error: BaseException) -> str:
    """What happened and what to do about it, for a message behind the name of the file."""
    text = " ".join(str(error).split())
    code = _lock_code(error)
    if code in _HELD:
        return (
            "in use by another program that has it open for writing; close it there, or copy the"
            " file once it has been saved, and convert the copy"
        )
    if code is not None:
        return (
            f"the file system cannot lock it (errno {code}), as many network shares cannot; copy it"
            " to a local disk, or set HDF5_USE_FILE_LOCKING=FALSE where no program writes to it"
        )
    if "already open for" in text:
        return (
            "in use by another program that has it open for writing, or not closed by one that"
            " crashed; close it there. If none has it open, clear the mark with `h5clear -s` on a"
            " copy and look whether all slices are there"
        )
    truncated = _TRUNCATED.search(text)
    if truncated:
        there, whole = truncated.groups()
        return f"truncated HDF5 file: {there} of {whole} bytes are there; copy or export it again"
    if os_code(error) is not None:
        return reason(error)
    return reason(
        error,
        damaged=f"truncated or damaged HDF5 file ({text[:200]}); copy or export it again",
    )


def _lock_code(error: BaseException) -> int | None:
    """The number of the failure to lock, None where something else failed."""
    text = str(error)
    match = _LOCK_CODE.search(text) if _LOCK in text else None
    return int(match.group(1)) if match else None
