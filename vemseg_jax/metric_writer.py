"""Where the numbers of a training run go: a JSON-lines file always, TensorBoard on request."""

import json
from pathlib import Path
from typing import Any

from vemseg_jax.commands import install
from vemseg_jax.errors import InputError

LOG_NAME = "log.jsonl"
TENSORBOARD = "tensorboard"


class MetricWriter:
    """Appends one JSON object per call to `log.jsonl`, and scalars to TensorBoard.

    Started again at `first_step`, it first drops what a killed run had logged beyond it, so
    that no step is logged twice; with `validates` also the validation of that step, which is
    done again.
    """

    def __init__(
        self, workdir: Path, *, first_step: int, tensorboard: bool, validates: bool = False
    ):
        self._board = _open_tensorboard(workdir, first_step) if tensorboard else None
        self._path = workdir / LOG_NAME
        self._drop_after(first_step, validates=validates)
        self._file = self._path.open("a", encoding="utf-8")

    def _drop_after(self, step: int, *, validates: bool) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                again = validates and entry["step"] == step and "val_loss" in entry
                if entry["step"] <= step and not again:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the last line of a killed run can be cut short
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(self._path)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Logs `values` under the number of finished steps."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class NoWriter(MetricWriter):
    """Writes nothing: of the processes that train together, one keeps the log."""

    def __init__(self) -> None:
        """Opens nothing."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Drops the values."""

    def close(self) -> None:
        """Nothing to close."""


def _open_tensorboard(workdir: Path, first_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs the package tensorboardX, which is not installed; run:"
            f" {install('tensorboard')}"
        ) from None
    return SummaryWriter(str(workdir / TENSORBOARD), purge_step=first_step + 1)
