"""Files beneath a folder or a URL, through tensorstore's key-value stores."""

import json
import os
import re
from pathlib import Path
from typing import Any

import tensorstore as ts

from vemseg_jax.data.formats.codecs import METADATA, name_unknown
from vemseg_jax.data.store.failures import os_code, reason
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

# Formats may be named in front of an address, as neuroglancer does.
_FORMAT_PREFIX = re.compile(r"^(precomputed|zarr|zarr2|zarr3|n5)://(?=\w+://)")
_SCHEME = re.compile(r"^(gs|s3|https?)://")
# Decoded chunks that are kept, so that thick ones are not read once per slice.
_CACHE_BYTES = 2**30
# By itself tensorstore goes on trying for many minutes.
_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "2s"}
_SECONDS = 60.0

_ZIP = b"PK\x03\x04"

Location = Path | str


def location(text: str | Path) -> Location:
    """A URL that can be read as a string, anything else as an absolute path (`local_path`)."""
    text = os.fspath(text)
    address = _FORMAT_PREFIX.sub("", text)
    if _SCHEME.match(address):
        return address.rstrip("/")
    if "://" in text and not address.startswith("file:"):
        raise InputError(
            f"{text}: not an address that can be read; those of gs://, s3://, http:// and https://"
            " can, and local paths"
        )
    return local_path(address)


def find_archive(path: Path) -> Path | None:
    """The zip file that a path is, or leads into; None where there is none."""
    for file in (path, *path.parents):
        if file.is_file() and os.access(file, os.R_OK):
            with open(file, "rb") as stream:
                return file if stream.read(len(_ZIP)) == _ZIP else None
        if file.exists():
            return None
    return None


def _address(path: Location, archive: Path | None) -> "str | dict[str, Any]":
    """As tensorstore takes it; the path within an archive ends in a slash unless empty."""
    if archive is not None:
        inner = "".join(f"{part}/" for part in Path(path).relative_to(archive).parts)
        return {"driver": "zip", "base": {"driver": "file", "path": f"{archive}"}, "path": inner}
    return {"driver": "file", "path": f"{path}/"} if isinstance(path, Path) else f"{path}/"


class Store:
    """What lies at a location, file by file.

    Attributes:
      path: the location, for messages.
    """

    def __init__(self, path: Location, archive: Path | None = None):
        """`archive` is the zip file in which `path` lies, or which it is."""
        self.path = path
        self._archive = archive
        self._context = ts.Context(
            {
                "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
                **{f"{kind}_request_retries": _RETRIES for kind in ("http", "gcs", "s3")},
            }
        )
        try:
            self._store = ts.KvStore.open(_address(path, archive), context=self._context).result(
                timeout=_SECONDS
            )
        except (ValueError, OSError, TimeoutError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        if os_code(error) is not None and isinstance(self.path, Path):
            return InputError(f"{self.path}: {reason(error)}")
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if "ZIP" in text:
            return InputError(
                f"{self._archive}: truncated or damaged zip file ({text}); copy it again"
            )
        return InputError(
            f"{self.path}: cannot be read ({text}); check address, network and access rights"
        )

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none.

        Raises:
          InputError: it cannot be reached.
        """
        try:
            found = self._store.read(name).result(timeout=_SECONDS)
        except (ValueError, OSError, TimeoutError) as error:
            raise self._unreadable(error) from error
        return found.value if found.state == "value" else None

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None where there is no such file.

        Raises:
          InputError: it cannot be reached, or is no JSON object.
        """
        data = self.read(name)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{self.path}/{name}: not a JSON object; copy or export it again")
        return value

    def names(self) -> list[str]:
        """Folders and files directly below, sorted; empty where they cannot be listed."""
        if not isinstance(self.path, Path):
            return []
        if not self.path.is_dir():
            below = self.list(self._store, "", timeout=_SECONDS) or []
            found = {name.split("/")[0] for name in below if name[0] != "."}
            # What the Mac adds to archives.
            return sorted(found - {"__MACOSX"})
        return sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != ".")

    def list(self, kvstore: ts.KvStore, folder: str, *, timeout: float) -> "list[str] | None":
        """Names of all files of a store beneath `folder`, which ends in a slash or is empty.

        None where they cannot be listed, as those behind `http://`, or not in `timeout` seconds.
        """
        # The character after the slash ends the range of names that begin with the folder.
        end = folder[:-1] + chr(ord("/") + 1) if folder else ""
        try:
            found = kvstore.list(ts.KvStore.KeyRange(folder, end), strip_prefix_length=len(folder))
            return [name.decode(errors="replace") for name in found.result(timeout=timeout)]
        except (NotImplementedError, ValueError, OSError, TimeoutError):
            return None

    def open_strictly(self, array: ts.TensorStore) -> ts.TensorStore:
        """The same array, whose chunks that are not stored are an error when they are read."""
        spec = {**array.spec().to_json(), "fill_missing_data_reads": False}
        return ts.open(spec, context=self._context).result(timeout=_SECONDS)

    def open(self, driver: str, inner: str = "", **options: Any) -> ts.TensorStore:
        """The array of a driver, at a path beneath this one; no pixel is read.

        Raises:
          InputError: it cannot be opened.
        """
        kvstore = self._store.spec().to_json()
        kvstore["path"] = kvstore.get("path", "") + (f"{inner}/" if inner else "")
        spec = {"driver": driver, "kvstore": kvstore, **options}
        try:
            future = ts.open(spec, open=True, read=True, context=self._context)
            return future.result(timeout=_SECONDS)
        except (ValueError, OSError, TypeError, TimeoutError) as error:
            where = f"{self.path}/{inner}" if inner else f"{self.path}"
            if os_code(error) is not None and isinstance(self.path, Path):
                raise InputError(f"{where}: {reason(error)}") from error
            text = " ".join(str(error).split())[:300]
            unknown = self._unknown_codec(driver, inner)
            if unknown is not None:
                raise InputError(f"{where}: {unknown}") from error
            raise InputError(f"{where}: array cannot be opened ({text})") from error

    def _unknown_codec(self, driver: str, inner: str) -> str | None:
        """What of an array's metadata cannot be read here, though it is not damaged."""
        name = f"{inner}/{METADATA[driver]}" if inner else METADATA[driver]
        return name_unknown(driver, self.json(name) or {})
