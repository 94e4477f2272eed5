"""Runs what a study lacks, each cell in a process of its own."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

from vemseg_jax.config import differences, is_pair
from vemseg_jax.data.store.atomic import lock, unlock, write_json
from vemseg_jax.errors import InputError
from vemseg_jax.progress import clock
from vemseg_jax.study.cell import RESULT
from vemseg_jax.study.design import (
    Cell,
    Study,
    cells,
    describe,
    experiment,
    related_volumes,
    scored_slices,
    training_slices,
)
from vemseg_jax.study.specs import to_values

STUDY, CELLS, FAILED, SPEC, LOG = "study.json", "cells", "failed.json", "spec.json", "log.txt"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a cell: `result` of `study.cell`, or why it `failed`, or neither yet."""

    cell: Cell
    result: dict[str, Any] | None
    failed: str | None

    def dice_3d(self, structure: str) -> float | None:
        """None where it failed, was not run, or nothing is to be found."""
        return self.result["scores"][structure]["dice_3d"] if self.result else None


def check_study(study: Study) -> None:
    """Looks at everything a study needs before its first run.

    Raises:
      InputError: a volume, label, budget or configuration that cannot be used.
    """
    for what, values in (
        ("--volumes: the name", [volume.name for volume in study.volumes]),
        ("--volumes: the path", [volume.path.resolve() for volume in study.volumes]),
        ("--budgets:", study.budgets),
        ("--seeds:", study.seeds),
    ):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise InputError(f"{what} {twice[0]} is there more than once; give each once")
    for volume in study.volumes:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", volume.name):
            raise InputError(
                f"--volumes: the name {volume.name!r} goes into file names; use letters, digits,"
                " '_', '.' and '-'"
            )
    for volume in study.volumes:
        scored_slices(study, volume)
    for one, other, found in related_volumes(study):
        if study.across and found.same:
            raise InputError(
                f"--volumes: {one.name} and {other.name} show the same slices ({found.text}): what "
                "is trained on one is no test on the other; leave one out"
            )
    if study.across and len(study.volumes) < 2:
        raise InputError("training on all volumes but one needs at least two volumes")
    for method in study.methods:
        if is_pair(method.config) and method.base and not _has(study, method.base):
            raise InputError(f"{method.name} is compared with {method.base}, which is left out")


def _has(study: Study, name: str) -> bool:
    return any(method.name == name for method in study.methods)


def claim(study: Study, output: Path) -> None:
    """Takes a new folder, or one of the same study.

    Raises:
      InputError: the folder holds another study, or something else.
    """
    path, new = output / STUDY, describe(study)
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = differences(_without_paths(old), _without_paths(new))
        if changed:
            shown = "; ".join(textwrap.shorten(c, 160, placeholder=" ...") for c in changed[:5])
            raise InputError(
                f"--output={output} holds another study ({shown}); choose a new folder, or give "
                "the same flags to go on"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, new)


def _without_paths(description: dict[str, Any]) -> dict[str, Any]:
    """A study is the same one in another folder."""
    volumes = [{k: v for k, v in each.items() if k != "path"} for each in description["volumes"]]
    return {**description, "volumes": volumes}


def outcome(output: Path, cell: Cell) -> Outcome:
    """What is on disk of a cell."""
    folder = output / CELLS / cell.key
    if (folder / RESULT).exists():
        return Outcome(cell, json.loads((folder / RESULT).read_text(encoding="utf-8")), None)
    if (folder / FAILED).exists():
        failed = json.loads((folder / FAILED).read_text(encoding="utf-8"))
        return Outcome(cell, None, failed["reason"])
    return Outcome(cell, None, None)


def outcomes(study: Study, output: Path) -> list[Outcome]:
    """What is on disk of every cell."""
    return [outcome(output, cell) for cell in cells(study)]


def run_study(study: Study, output: Path) -> list[Outcome]:
    """Runs every cell that has no result; those that failed before are tried again.

    Several processes may work on one folder, each at cells that no other is at: one a GPU, say.

    Args:
      study: what to compare.
      output: folder of the study.

    Returns:
      What became of each cell.

    Raises:
      InputError: a study that cannot be run, or a folder of another one.
    """
    check_study(study)
    claim(study, output)
    everything = list(cells(study))
    missing = [cell for cell in everything if outcome(output, cell).result is None]
    print(f"{len(everything)} runs, {len(everything) - len(missing)} done before", flush=True)
    start, since, elsewhere = time.monotonic(), time.time(), []
    for number, cell in enumerate(missing, 1):
        found = run_cell(study, cell, output, since=since)
        if found is None:
            print(f"[{number}/{len(missing)}] {_head(cell)}: another process is at it", flush=True)
            elsewhere.append(cell)
            continue
        passed = time.monotonic() - start
        left = passed / number * (len(missing) - number)
        print(
            f"[{number}/{len(missing)} {clock(passed)}, {clock(left)} left] {_line(found)}",
            flush=True,
        )
    for number, cell in enumerate(elsewhere, 1):
        # What the other process does not end either is done here.
        run_cell(study, cell, output, since=since, wait=True)
        line = _line(outcome(output, cell))
        print(f"[{number}/{len(elsewhere)} begun elsewhere] {line}", flush=True)
    return outcomes(study, output)


def _head(cell: Cell) -> str:
    where = f"{'+'.join(cell.trained_on)} -> {cell.volume}" if cell.is_across else cell.volume
    return f"{where}, {cell.budget} slices, {cell.method}, seed {cell.seed}"


def _line(found: Outcome) -> str:
    if found.result is None:
        return f"{_head(found.cell)}: FAILED: {found.failed}"
    dice = [(name, found.dice_3d(name)) for name in found.cell.structures]
    shown = ", ".join(f"{n} {'-' if d is None else format(d, '.3f')}" for n, d in dice)
    return f"{_head(found.cell)}: 3D Dice {shown}"


def run_cell(
    study: Study, cell: Cell, output: Path, *, since: float, wait: bool = False
) -> Outcome | None:
    """Runs one cell in a new process; what it says goes to `log.txt` in its folder.

    Args:
      study: that it is of.
      cell: to run.
      output: folder of the study.
      since: seconds of the epoch; what another process has failed at after that is not tried again.
      wait: for another process that is at it.

    Returns:
      What became of it, also if another process has done it; None if one is at it.
    """
    folder = output / CELLS / cell.key
    folder.mkdir(parents=True, exist_ok=True)
    try:
        taken = lock(folder, wait=wait)
    except BlockingIOError:
        return None
    try:
        failed = folder / FAILED
        just_failed = failed.exists() and failed.stat().st_mtime >= since
        if not (folder / RESULT).exists() and not just_failed:
            _run_locked(study, cell, folder, taken)
    finally:
        unlock(taken)
    return outcome(output, cell)


def _run_locked(study: Study, cell: Cell, folder: Path, taken: int | None) -> None:
    (folder / FAILED).unlink(missing_ok=True)
    volume = next(volume for volume in study.volumes if volume.name == cell.volume)
    config = experiment(study, cell)
    spec = {
        "cell": dataclasses.asdict(cell),
        "config": to_values(config),
        "volume": str(volume.path),
        "scored": list(scored_slices(study, volume)),
        "training_slices": list(training_slices(volume, cell.budget)),
        "suffix": f"_{cell.key}",
        "method": study.prediction,
    }
    write_json(folder / SPEC, spec)
    command = [sys.executable, "-m", "vemseg_jax.study.cell", str(folder)]
    status = _run_process(command, folder / LOG, taken)
    if status or not (folder / RESULT).exists():
        write_json(folder / FAILED, {"reason": _reason(folder / LOG, status), "status": status})
    else:
        # Optimizer and weights of dozens of runs are gigabytes; predictions and scores stay.
        shutil.rmtree(folder / "training" / "checkpoints", ignore_errors=True)


def _run_process(command: list[str], log: Path, taken: int | None) -> int:
    """Runs a cell's process and gives its status; an interrupt is passed on, and waits for it."""
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            # The run holds the lock too: it may outlive this process.
            pass_fds=() if taken is None else (taken,),
            # Ctrl-C in a terminal reaches a whole group: the run would get it twice.
            process_group=0,
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It saves the step that it is at.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


def _reason(log: Path, status: int) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "no output"
    last = last.removeprefix("vemseg_jax.errors.InputError: ")
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{last} ({how})"
