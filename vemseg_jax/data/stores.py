"""Files beneath a folder or a URL, through tensorstore's key-value stores."""

import json
import os
import re
from pathlib import Path
from typing import Any

import tensorstore as ts

from vemseg_jax.data.failures import os_code, reason
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


class Store:
    """What lies at a location, file by file.

    Attributes:
      path: the location, for messages.
    """

    def __init__(self, path: Location):
        self.path = path
        self._context = ts.Context(
            {
                "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
                **{f"{kind}_request_retries": _RETRIES for kind in ("http", "gcs", "s3")},
            }
        )
        local = {"driver": "file", "path": f"{path}/"}
        try:
            self._store = ts.KvStore.open(
                local if isinstance(path, Path) else f"{path}/", context=self._context
            ).result(timeout=_SECONDS)
        except (ValueError, OSError, TimeoutError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        if os_code(error) is not None and isinstance(self.path, Path):
            return InputError(f"{self.path}: {reason(error)}")
        text = " ".join(str(error).split())[:300] or type(error).__name__
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
        return sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != ".")

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
            raise InputError(f"{where}: array cannot be opened ({text})") from error
