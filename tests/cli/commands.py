"""One command after another in this process, each with its own flags."""

import contextlib
import importlib
import sys
import tomllib
from pathlib import Path

from absl import flags

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
# Program -> module; without `vemseg`, which has no flags and starts the others.
COMMANDS = {name: at.partition(":")[0] for name, at in SCRIPTS.items() if name != "vemseg"}


@contextlib.contextmanager
def loaded(name):
    """The module of a command, freshly imported; only its flags and absl's are defined then."""
    module = COMMANDS[name]
    ours = [n for n in flags.FLAGS if _is_ours(n)]
    saved = {n: flags.FLAGS[n] for n in ours}
    by_module = {m: list(f) for m, f in flags.FLAGS.flags_by_module_dict().items()}
    for n in ours:
        delattr(flags.FLAGS, n)
    kept = {n: sys.modules.pop(n) for n in list(sys.modules) if n.startswith("vemseg_jax.cli.")}
    try:
        yield importlib.import_module(module)
    finally:
        for n in [n for n in flags.FLAGS if _is_ours(n)]:
            delattr(flags.FLAGS, n)
        for n in [n for n in sys.modules if n.startswith("vemseg_jax.cli.")]:
            del sys.modules[n]
        sys.modules.update(kept)
        for m, defined in by_module.items():
            for flag in defined:
                if flag.name in saved:
                    flags.FLAGS[flag.name] = flag
                    flags.FLAGS.register_flag_by_module(m, flag)


def _is_ours(name):
    module = flags.FLAGS.find_module_defining_flag(name) or ""
    return name.startswith("config.") or module.startswith("vemseg_jax.")
