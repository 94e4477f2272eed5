"""Which blocks of a label image are finished: an append-only ledger beside its arrays.

`ledger/header.json` tells what the label follows from; every process that works on it adds a line
to a file of its own, `ledger/I-of-N.jsonl`, once a block is on disk. `COMPLETE` stands there when
no block is missing.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vemseg_jax.data.store.atomic import Journal, lock, read_lines, remove, unlock, write_json
from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError
from vemseg_jax.infer.grid import BlockGrid
from vemseg_jax.infer.outputs import Checksums

LEDGER, HEADER, COMPLETE = "ledger", "header.json", "COMPLETE"


def fingerprint(parts: dict[str, Any]) -> str:
    """Stands for everything that a prediction follows from."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_header(directory: Path) -> dict[str, Any] | None:
    """The header of a label's ledger: `fingerprint` and `parts`; None if there is none.

    Raises:
      InputError: it is damaged.
    """
    path = directory / LEDGER / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        return {"fingerprint": str(header["fingerprint"]), "parts": dict(header["parts"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = reason(error, damaged="is damaged; predict again with --overwrite")
        raise InputError(f"{path}: {why}") from error


def read_ledger(directory: Path) -> dict[int, Checksums]:
    """Finished blocks and their checksums, from the ledgers of all processes.

    Raises:
      InputError: a line is damaged.
    """
    done: dict[int, Checksums] = {}
    for path in sorted((directory / LEDGER).glob("*.jsonl")):
        for entry in read_lines(path)[0]:
            done[int(entry["block"])] = {str(k): int(v) for k, v in entry["crc32"].items()}
    return done


def missing(directory: Path) -> list[int] | None:
    """Blocks that are not finished; None if the ledger is not, or no longer, there."""
    done = read_ledger(directory)
    # Read last: a directory that is renamed in between is told from an empty one.
    header = read_header(directory)
    if header is None:
        return None
    return [n for n in range(len(BlockGrid.from_dict(header["parts"]["grid"]))) if n not in done]


def is_complete(directory: Path) -> bool:
    """Whether every block was finished."""
    return (directory / COMPLETE).exists()


def write_header(directory: Path, parts: dict[str, Any]) -> None:
    """Begins a ledger, unless another process of the same prediction has begun it.

    Raises:
      InputError: another prediction has begun it.
    """
    folder = directory / LEDGER
    folder.mkdir(parents=True, exist_ok=True)
    header = {"fingerprint": fingerprint(parts), "parts": parts}
    own = folder / f".{HEADER}.{platform.node()}.{os.getpid()}"
    write_json(own, header)
    try:
        _put_if_absent(own, folder / HEADER)
    except FileExistsError:
        there = read_header(directory)
        if there is None or there["fingerprint"] != header["fingerprint"]:
            raise InputError(
                f"{directory}: another prediction has just begun to write it; wait for it or"
                " choose another --suffix"
            ) from None
    finally:
        own.unlink(missing_ok=True)


def _put_if_absent(own: Path, path: Path) -> None:
    """Raises FileExistsError if it is there, also when another process is a moment faster."""
    try:
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: nearly as good
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(own, path)


class LedgerWriter:
    """One process's file of the ledger of one label; a context manager.

    Raises:
      InputError: another process is writing this file.
    """

    def __init__(self, directory: Path, *, shard: int, num_shards: int):
        path = directory / LEDGER / f"{shard}-of-{num_shards}.jsonl"
        path.touch()
        try:
            self._lock = lock(path, wait=False)
        except BlockingIOError:
            raise InputError(
                f"{directory.parent}: another process is predicting shard {shard} of {num_shards};"
                " wait for it or choose another --suffix"
            ) from None
        self._journal = Journal(path, sync=True)

    def add(self, number: int, checksums: Checksums) -> None:
        """Records a block, which must be on disk."""
        self._journal.add({"block": number, "crc32": checksums})

    def __enter__(self) -> "LedgerWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        unlock(self._lock)


def discard(directory: Path) -> None:
    """Removes an unfinished label.

    Raises:
      InputError: a process is writing it.
    """
    taken = []
    try:
        for path in _lockable(directory):
            taken.append(lock(path, wait=False))
    except BlockingIOError:
        raise InputError(f"{directory}: another process is writing it; wait for it") from None
    finally:
        for each in taken:
            unlock(each)
    remove(directory)


def _lockable(directory: Path) -> Iterator[Path]:
    yield directory
    yield from (directory / LEDGER).glob("*.jsonl")
