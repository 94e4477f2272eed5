"""Where programs that XLA compiled are kept from one run to the next."""

import os
from pathlib import Path


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache, so that a second run starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder; empty, nothing is kept. Small programs are
    kept too: those that make initial weights compile for 5 to 15 s together.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "vemseg_jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
