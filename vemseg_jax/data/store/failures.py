"""Why something could not be read or written, and what helps, from whatever exception came."""

import errno
import os
import re
from collections.abc import Iterator

# What readers name when a codec is missing.
_CODEC_PACKAGES = ("imagecodecs", "hdf5plugin", "zarr", "numcodecs")
_NO_CODEC = re.compile(
    r"is not registered|can't open directory.*plugin|filter.*not available|required filter"
    r"|compression.*(?:not supported|unknown)|unsupported compression|not a valid COMPRESSION",
    re.IGNORECASE,
)
# How tensorstore and HDF5 write the number of an error of the operating system.
_CODES = re.compile(r"os_error_code='(\d+)'|\bOS error:? (\d+)|\[Errno (\d+)\]|\berrno = (\d+)")
_LONGEST = 300

_FULL = (
    "the disk is full ({text}); make room on it, or choose an output on another disk, and start"
    " again"
)
_LOST = (
    "the connection to the disk or network share was lost ({text}); connect it again and start"
    " again"
)
_BROKEN = (
    "the disk or network share failed ({text}); check it and its connection, copy the file to"
    " another disk, and start again"
)
_GONE = (
    "the file is not there ({text}); it was moved, renamed or deleted: put it back and start again"
)
_DENIED = "no permission to {do} it ({text}); change its access rights, or those of its folder"
_IN_USE = "in use by another program ({text}); close it there, or wait until it is done"
_FILES = (
    "too many files are open ({text}); raise the limit with `ulimit -n 65536` in the shell and"
    " start again"
)
_MEMORY = (
    "there is not enough memory ({text}); close other programs, or use a machine with more memory"
)
_LARGE = (
    "the file would be larger than the disk's file system or `ulimit -f` allows ({text}); choose"
    " an output on another disk"
)

_TEXTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "your quota on this disk is used up ({text}); make room, or choose an output on"
    " another disk, and start again",
    errno.EFBIG: _LARGE,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the disk is read-only ({text}); choose an output on another disk",
    errno.EAGAIN: _IN_USE,
    errno.EBUSY: _IN_USE,
    errno.EDEADLK: _IN_USE,
    errno.ENOLCK: "the file system has no locks left, or none at all ({text}); copy the file to a"
    " local disk",
    errno.ETXTBSY: _IN_USE,
    errno.EIO: _BROKEN,
    errno.EREMOTEIO: _BROKEN,
    errno.ENXIO: _LOST,
    errno.ENODEV: _LOST,
    errno.ESTALE: _LOST,
    errno.ENOTCONN: _LOST,
    errno.ESHUTDOWN: _LOST,
    errno.ETIMEDOUT: _LOST,
    errno.EHOSTDOWN: _LOST,
    errno.EHOSTUNREACH: _LOST,
    errno.ENETDOWN: _LOST,
    errno.ENETUNREACH: _LOST,
    errno.ECONNRESET: _LOST,
    errno.ECONNABORTED: _LOST,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.EISDIR: "a folder stands where a file should be ({text}); remove or rename it",
    errno.ENAMETOOLONG: "its name or path is too long ({text}); choose a shorter one",
}
_PHRASES = {os.strerror(code): code for code in _TEXTS}

# Faults of the machine, whatever was being read or written when they showed.
_MACHINE = frozenset(
    code
    for code, text in _TEXTS.items()
    if text in (_FULL, _LOST, _BROKEN, _FILES, _MEMORY, _LARGE)
) | {errno.EDQUOT, errno.EROFS}
_PATH = re.compile(r"(?:file|writing:|open:|read:) \"([^\"]+)\"")

DAMAGED_REMEDY = "copy or export it again"


def reason(
    error: BaseException, *, writing: bool = False, damaged: str | None = None, again: str = ""
) -> str:
    """What happened and what to do about it, for a message behind the name of the file.

    A full disk, a file in use, a missing codec, missing permission, a failing disk or share, too
    many open files, too little memory, a missing file and a damaged one are different things.

    Args:
      error: what a reader or writer raised; those that caused it count too.
      writing: it came from writing.
      damaged: what to say where none of the other causes fits; by default that the file is
        truncated or damaged, or could not be written, with the text of the error.
      again: what to do about a damaged file; by default to copy or export it again.
    """
    text = _text(error)
    code = os_code(error)
    if code is not None:
        return _TEXTS[code].format(do="write" if writing else "read", text=os.strerror(code))
    chain = list(_chain(error))
    if any(isinstance(each, MemoryError) for each in chain) or "RESOURCE_EXHAUSTED" in text:
        return _MEMORY.format(text=text or "MemoryError")
    codec = _codec(chain)
    if codec is not None:
        return codec
    if "CURL" in text or "retry attempts" in text or "HTTP response code" in text:
        return f"cannot be fetched ({text}); check address, network and access rights"
    if damaged is not None:
        return damaged
    shown = f"{type(error).__name__}: {text}"
    if writing:
        return f"could not be written ({shown}); look at the disk, or choose another output"
    return f"truncated or damaged, cannot be decoded ({shown}); {again or DAMAGED_REMEDY}"


def os_code(error: BaseException) -> int | None:
    """The operating system's number of what went wrong, one of those with a text here.

    Looks at the exception, those it came from, and at their messages: tensorstore and HDF5 put
    the number, or the system's words for it, into the text of exceptions of their own.
    """
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _TEXTS:
            return each.errno
        text = str(each)
        for match in _CODES.finditer(text):
            code = int(next(group for group in match.groups() if group))
            if code in _TEXTS:
                return code
        for phrase, code in _PHRASES.items():
            if phrase in text:
                return code
    return None


def machine_fault(error: BaseException) -> str | None:
    """One line on a disk, connection or memory that failed; None for anything else.

    Names the file, where the error does.
    """
    memory = any(isinstance(each, MemoryError) for each in _chain(error))
    if os_code(error) not in _MACHINE and not memory:
        return None
    names = [each.filename for each in _chain(error) if isinstance(each, OSError)]
    names += [found.group(1) for each in _chain(error) for found in _PATH.finditer(str(each))]
    name = next((name for name in names if name), None)
    why = reason(error, writing=True)
    return why if name is None else f"{os.fsdecode(name)}: {why}"


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is to blame, as far as one can tell."""
    marker = "\0"
    return reason(error, damaged=marker) == marker


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST]


def _codec(chain: list[BaseException]) -> str | None:
    for error in chain:
        text = _text(error)
        package = next((n for n in _CODEC_PACKAGES if f"requires the '{n}'" in text), None)
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
        elif isinstance(error, ImportError) and "imagecodecs" in text:
            package = "imagecodecs"
        if package:
            return f"its compression needs the package {package} ({text}); pip install {package}"
        if isinstance(error, ImportError) or _NO_CODEC.search(text):
            return (
                f"its compression is not known here ({text}); save it without compression, or with"
                " LZW, deflate or zstd"
            )
    return None
