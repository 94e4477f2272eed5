"""Keeps XLA on a CPU from fused sums that come out wrong."""

import importlib.metadata
import importlib.util
import mmap
import os
import re
import sys
import warnings
from pathlib import Path

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
GUARD = f"{FLAG}=-reduce"
# The first jaxlib with wrong sums and the newest that was looked at, which has them too.
FIRST, NEWEST = (0, 10, 2), (0, 12, 0, 1)


def avoid_wrong_sums() -> None:
    """Tells XLA, by `XLA_FLAGS`, to leave no sums to YNNPACK; comes before any use of a device.

    From jaxlib 0.10.2 on XLA gives matrix products that are summed up at once to YNNPACK, as one
    fusion, and gets some wrong without a word: a small matrix first and 32769 to 40000 rows of 3
    (jax#39103, 0.10.2 alone), or a batch of products with a matrix of equal entries, as gradients
    of sums have them (wrong by any factor, nan among it, up to 0.12.0.1). Without fused sums both
    are right, products and convolutions stay YNNPACK's, and a training step takes no longer.

    The package does this as it is imported, rather than its commands: a wrong gradient in somebody
    else's script is no better. XLA reads `XLA_FLAGS` when it meets the first device, so importing
    jax before is fine.

    Does nothing to a jaxlib without that fault or without that flag (it would not start), and
    nothing where the user chose fusions.

    Warns:
      RuntimeWarning: it is too late, or `XLA_FLAGS` names a file.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if FLAG in flags or not _concerned():
        return
    if flags and not flags.startswith("-"):
        if FLAG not in _text(Path(flags)):
            _warn(f"XLA_FLAGS names a file, {flags}; add {GUARD} to it")
    elif _in_use():
        _warn(f"import vemseg_jax before jax meets a device, or set XLA_FLAGS={GUARD}")
    else:
        os.environ["XLA_FLAGS"] = f"{flags} {GUARD}".strip()


def _concerned() -> bool:
    """Whether the installed jaxlib may sum wrong, and knows the flag."""
    try:
        text = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return False
    numbers = re.match(r"[\d.]*\d", text)
    version = tuple(int(n) for n in numbers[0].split(".")) if numbers else ()
    return version >= FIRST and (version <= NEWEST or _knows_flag())


def _knows_flag() -> bool:
    """Whether the flag, which is experimental, still is in XLA; looks through its library."""
    found = importlib.util.find_spec("jaxlib")
    folders = found.submodule_search_locations if found else None
    for path in (p for folder in folders or () for p in Path(folder).glob("libjax_common.*")):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            words = FLAG.removeprefix("--"), "LIBRARY_FUSION_TYPE_REDUCE"
            return all(text.find(word.encode()) >= 0 for word in words)
    return False


def _in_use() -> bool:
    """Whether jax has met a CPU as its device."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not bridge.backends_are_initialized():
        return False
    return sys.modules["jax"].default_backend() == "cpu"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # XLA says so


def _warn(advice: str) -> None:
    version = importlib.metadata.version("jaxlib")
    warnings.warn(
        f"jaxlib {version} sums some matrix products wrong on a CPU: {advice}",
        RuntimeWarning,
        stacklevel=4,
    )
