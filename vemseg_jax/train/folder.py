"""The folder of a run: checked before anything is written, claimed once the run works."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from vemseg_jax.checkpoint import BEST, FOLDER, LATEST
from vemseg_jax.config import ExperimentConfig, ModelConfig, completed, differences, plain
from vemseg_jax.data.store.atomic import lock, unlock, write_json
from vemseg_jax.data.store.failures import reason
from vemseg_jax.errors import InputError
from vemseg_jax.metric_writer import LOG_NAME, TENSORBOARD
from vemseg_jax.models import registry

CONFIG_NAME = "config.json"
# Fields that change neither the weights nor which of them are best.
FREE_FIELDS = (
    "train.log_every",
    "train.checkpoint_every",
    "cps.collapse_steps",
    "data.memory_budget_gib",
    "data.cache_gib",
    # What they hold is compared when a checkpoint is resumed; folders may move.
    "data.volume",
    "data.other_volumes",
    "train.devices",
)


def plain_config(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as JSON values, with the network's name."""
    return {**plain(config), "model": plain(registry.model_to_dict(config.model))}


def is_begun(workdir: Path) -> bool:
    """Whether a run left anything there that can be gone on with, or looked at."""
    log = workdir / LOG_NAME
    if log.exists() and log.stat().st_size:
        return True
    folders = (workdir / FOLDER / which for which in (LATEST, BEST))
    return any(path.name.isdecimal() for f in folders if f.is_dir() for path in f.iterdir())


class RunFolder:
    """A context manager; what a start that fails has made is removed again.

    A folder with a configuration but without a checkpoint and without a line of the log is that of
    a start that failed: another configuration may take it.
    """

    def __init__(self, workdir: Path, config: ExperimentConfig):
        self.path, self._config = workdir, plain_config(config)
        self._opened = self._made = self._board = self._moved = False
        self._taken: int | None = None

    def open(self) -> None:
        """Makes the folder, and keeps other processes from training in it.

        Raises:
          InputError: it cannot be written, another process trains there, or it holds another run.
        """
        self._check()
        missing = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._opened, self._made = True, missing
            self._board = (self.path / TENSORBOARD).exists()
            self._taken = lock(self.path, wait=False)
        except BlockingIOError:
            self._opened = False
            raise InputError(
                f"--workdir={self.path}: another process is training there; wait for it or choose "
                "a new --workdir"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        why = reason(error, writing=True)
        return InputError(f"--workdir={self.path} cannot be written: {why}")

    def _check(self) -> None:
        path = self.path / CONFIG_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            old = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} is no configuration of a run ({error})") from error
        if not isinstance(old, dict):
            raise InputError(f"{path} is no configuration of a run; choose a new --workdir")
        # What an earlier version did not know of was as it is by default.
        default = plain(ExperimentConfig(model=ModelConfig()))
        old = completed(old, {**default, "model": registry.defaults(old.get("model"))})
        self._moved = bool(differences(old["data"], self._config["data"]))
        changed = [
            line for line in differences(old, self._config) if not line.startswith(FREE_FIELDS)
        ]
        if changed and is_begun(self.path):
            raise InputError(
                f"{self.path} holds a run with another configuration ({'; '.join(changed)}); "
                "choose a new --workdir, or give the same configuration to continue"
            )

    def claim(self) -> None:
        """Writes the configuration, unless a run that goes on has written it, of the same folders.

        Raises:
          InputError: it cannot be written.
        """
        path = self.path / CONFIG_NAME
        if path.exists() and is_begun(self.path) and not self._moved:
            return
        try:
            write_json(path, self._config)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._opened:
            self._tidy()
        unlock(self._taken)
        self._taken = None

    def _tidy(self) -> None:
        """Removes what holds nothing, where no run has begun."""
        if is_begun(self.path) or (self.path / CONFIG_NAME).exists():
            return
        (self.path / LOG_NAME).unlink(missing_ok=True)
        if not self._board:
            shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)
        for folder in (f"{FOLDER}/{LATEST}", f"{FOLDER}/{BEST}", FOLDER):
            with suppress(OSError):
                (self.path / folder).rmdir()
        if self._made:
            with suppress(OSError):
                self.path.rmdir()
