"""What a user writes as a path, and the path that is meant.

Every path of a flag, a configuration or a table passes through here, once. What comes out is
absolute, so that messages and what is recorded on disk make sense from any folder.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from vemseg_jax.errors import InputError

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_FILE_URL = re.compile(r"^file:/", re.IGNORECASE)
_WINDOWS = re.compile(r"^([A-Za-z]):[\\/]|^\\\\[^\\]")


def local_path(text: str | os.PathLike[str], *, flag: str = "", base: Path | None = None) -> Path:
    """The absolute path of a file or folder on this machine; it need not exist.

    `~` and `~NAME` are home folders, and a `file://` address may be percent-encoded. `..` leads
    where the system says: out of the folder that a symbolic link points at. Links are followed no
    further than that, so that files keep the names they were typed with.

    Args:
      text: as the user wrote it.
      flag: that it was given with, such as "--output", for the message.
      base: where relative paths start; by default the current folder.

    Raises:
      InputError: nothing, an address of another machine, or a path of Windows.
    """
    given, head = os.fspath(text), f"{flag}=" if flag else ""
    if not given.strip():
        raise InputError(f"{flag or 'a path'} is empty; give the path of a file or folder")
    path = _of_file_url(given, head) if _FILE_URL.match(given) else given
    if _URL.match(path):
        raise InputError(f"{head}{given}: an address; give the path of a file or folder here")
    if os.name != "nt" and (drive := _WINDOWS.match(path)) and not os.path.lexists(path):
        raise InputError(f"{head}{given}: a path of Windows; {_under_wsl(path, drive.group(1))}")
    start = os.getcwd() if base is None else str(local_path(base))
    return Path(_without_dots(os.path.join(start, os.path.expanduser(path))))


def _of_file_url(text: str, head: str) -> str:
    """The path in `file:///a%20b`, `file://localhost/a` or `file:/a`."""
    rest = text[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost") or not slash:
            raise InputError(
                f"{head}{text}: {host or 'nothing'!r} stands where file:// has the name of a"
                " machine; write file:///FOLDER/NAME with three slashes, or the path alone"
            )
        rest = f"/{path}"
    return unquote(rest)


def _under_wsl(path: str, drive: str | None) -> str:
    if drive is None:
        return "mount the share and give the path it has here"
    rest = path[2:].replace("\\", "/").lstrip("/")
    return f"under WSL2 it is /mnt/{drive.lower()}/{rest}"


def _without_dots(path: str) -> str:
    """An absolute path without `.`, `..` and doubled slashes."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        last = len(parts) - parts[::-1].index("..")
        resolved = os.path.realpath("/" + "/".join(parts[:last]))
        parts = [*resolved.split("/"), *parts[last:]]
    return "/" + "/".join(part for part in parts if part)


def same_place(first: str | Path, second: str | Path) -> bool:
    """Whether two local paths lead to the same place, through whatever links."""
    return os.path.realpath(local_path(first)) == os.path.realpath(local_path(second))
