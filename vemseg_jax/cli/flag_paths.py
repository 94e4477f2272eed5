"""Flags that name a file or folder."""

from pathlib import Path

from absl import flags

from vemseg_jax.paths import local_path


def given_path(flag: flags.FlagHolder) -> Path | None:
    """The absolute path that a flag names, None where it is not given.

    Raises:
      InputError: it is empty or no path of this machine.
    """
    return None if flag.value is None else local_path(flag.value, flag=f"--{flag.name}")
