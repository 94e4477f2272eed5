"""Checkpoints of a training run: the latest and the best, written atomically by orbax."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vemseg_jax.data.store.failures import is_damage, reason
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

LATEST, BEST = "latest", "best"
FOLDER = "checkpoints"


class Checkpoints:
    """`workdir/checkpoints/{latest,best}/STEP`, each with weights, optimizer and description.

    Items: `variables` (what inference needs), `optimizer` (absent from the best), and `meta`, a
    JSON description of network, data and step. Saving goes on in the background; a checkpoint
    that was not finished when the process died is ignored.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False):
        # orbax tells of every file it touches; its warnings still come through.
        logging.getLogger("absl").addFilter(_is_not_chatter)
        folder = workdir.absolute() / FOLDER
        if not read_only:
            _silence_closed_loops()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else 1, create=False, read_only=read_only
        )
        if jax.distributed.is_initialized():
            # This process alone saves, and waits for no other.
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            )
        self._managers = {}
        for which in (LATEST, BEST):
            if not read_only:
                (folder / which).mkdir(parents=True, exist_ok=True)
            self._managers[which] = ocp.CheckpointManager(folder / which, options=options)

    def save(
        self, which: str, step: int, *, variables: Any, meta: dict, optimizer: Any = None
    ) -> None:
        """Starts saving trees in host memory that nobody will change; older ones go after it."""
        items = {
            "variables": ocp.args.StandardSave(variables),
            "meta": ocp.args.JsonSave(meta),
        }
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardSave(optimizer)
        manager = self._managers[which]
        if step in manager.all_steps():
            return  # a run that resumed before it reproduces the same numbers
        with _saving(manager):
            manager.save(step, args=ocp.args.Composite(**items))

    def step(self, which: str) -> int | None:
        """The step of the checkpoint, None without one."""
        return self._managers[which].latest_step()

    def meta(self, which: str) -> dict:
        """The description saved with the checkpoint."""
        return self._restore(which, meta=ocp.args.JsonRestore()).meta

    def restore(self, which: str, *, variables: Any, optimizer: Any = None) -> tuple[Any, Any]:
        """The saved trees; the arguments are trees of the same structure, shapes and types."""
        items = {"variables": ocp.args.StandardRestore(_abstract(variables))}
        if optimizer is not None:
            items["optimizer"] = ocp.args.StandardRestore(_abstract(optimizer))
        restored = self._restore(which, **items)
        return restored.variables, restored.optimizer if optimizer is not None else None

    def _restore(self, which: str, **items: Any) -> Any:
        manager = self._managers[which]
        step = manager.latest_step()
        if step is None:
            raise InputError(
                f"{manager.directory} holds no finished checkpoint; train for longer, or choose "
                f"{LATEST if which == BEST else BEST!r}"
            )
        try:
            return manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            text = str(error).strip().split("\n")[0]
            damaged = (
                f"cannot be read ({text}); if it is damaged, delete that folder and train again"
            )
            why = reason(error, damaged=damaged)
            raise InputError(f"checkpoint {manager.directory}/{step} {why}") from error

    def close(self) -> None:
        """Waits until everything is saved."""
        with ExitStack() as stack:
            for manager in self._managers.values():
                stack.enter_context(_saving(manager))
                stack.callback(manager.close)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What ended the run is said, not that its last checkpoint failed for the same reason.
        with suppress(InputError) if kind is not None else nullcontext():
            self.close()


@contextmanager
def _saving(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns a disk that is full or fails into an error that says so; saving goes on behind."""
    try:
        yield
    except Exception as error:
        if is_damage(error):
            raise
        raise InputError(
            f"{manager.directory}: a checkpoint could not be saved: {reason(error, writing=True)}"
            " (finished checkpoints are kept; the same command continues from them)"
        ) from error


def _silence_closed_loops() -> None:
    """Keeps writes that a failed checkpoint leaves behind from printing a traceback each."""
    if not isinstance(sys.unraisablehook, _Report):
        sys.unraisablehook = _Report(sys.unraisablehook)


class _Report:
    """An unraisablehook that leaves out what tensorstore tells of loops that orbax has closed."""

    def __init__(self, report: Callable[[Any], object]):
        self._report = report

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and "Event loop is closed" in str(error)):
            self._report(unraisable)


class NoCheckpoints(Checkpoints):
    """Keeps and finds nothing: of the processes that train together, one has the checkpoints."""

    def __init__(self) -> None:
        """Opens nothing."""
        self._managers = {}

    def save(
        self, which: str, step: int, *, variables: Any, meta: dict, optimizer: Any = None
    ) -> None:
        """Drops the trees."""

    def step(self, which: str) -> int | None:
        """None: there is no checkpoint here."""
        return None


def _abstract(tree: Any) -> Any:
    # Placed on the host, so that a checkpoint of a GPU run restores on a CPU too.
    return jax.tree.map(lambda x: np.empty(np.shape(x), x.dtype), tree)


# orbax warns of what `read_only` asks for, and of the interrupt that a run is stopped by.
_ASKED_FOR = re.compile("read[_ ]only|preemption")


def _is_not_chatter(record: logging.LogRecord) -> bool:
    if "orbax" not in record.pathname:
        return True
    failure = record.exc_info[1] if record.exc_info else None
    if failure is not None and not is_damage(failure):
        return False  # a full disk, which is raised and said in one line
    return record.levelno >= logging.WARNING and not _ASKED_FOR.search(record.getMessage())


def open_checkpoints(workdir: Path) -> Checkpoints:
    """The checkpoints of a finished or running training, to be read; the folder stays as it is.

    Raises:
      InputError: no such folder.
    """
    workdir = local_path(workdir, flag="--checkpoint")
    if not (workdir / FOLDER).is_dir():
        raise InputError(
            f"{workdir} holds no checkpoints; give the --workdir of a vemseg-train run"
        )
    return Checkpoints(workdir, read_only=True)
