"""Segments the slices of a volume with a trained network, whole or saying what is missing."""

import contextlib
import dataclasses
import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

from vemseg_jax.accelerator import check_device
from vemseg_jax.data.store.failures import os_code
from vemseg_jax.errors import InputError
from vemseg_jax.infer import ledger
from vemseg_jax.infer.engines import LOCAL, Engine, Outcome, run
from vemseg_jax.infer.job import Job, PredictOptions
from vemseg_jax.infer.outputs import Output, OutputError, partial_directory
from vemseg_jax.infer.placing import begin, finish, missing_blocks
from vemseg_jax.infer.work import Work
from vemseg_jax.paths import local_path
from vemseg_jax.progress import track
from vemseg_jax.units import amount, figures

__all__ = ["Engine", "Job", "PredictOptions", "Sharing", "predict_volume"]


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Which of the blocks this process does: every `num_shards`th from number `shard` on."""

    shard: int = 0
    num_shards: int = 1

    def check(self) -> None:
        """Raises InputError for numbers that do not fit."""
        if self.num_shards < 1 or not 0 <= self.shard < self.num_shards:
            raise InputError(
                f"--shard={self.shard} --num_shards={self.num_shards}: shards count from 0 to"
                " num_shards - 1"
            )


@dataclasses.dataclass(frozen=True)
class Result:
    """What a prediction came to.

    Attributes:
      names: of the label images.
      complete: whether they are all there.
      failed: message by number of the block, of those that this process could not do.
      left: blocks that other shards have not done yet.
    """

    names: list[str]
    complete: bool
    failed: dict[int, str]
    left: int


def predict_volume(
    volume_path: Path,
    workdir: Path,
    *,
    which: str | None = None,
    slices: Sequence[int] = (),
    options: PredictOptions | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
    sharing: Sharing | None = None,
) -> Result:
    """Segments slices and stores each structure as a label image of the volume.

    Pixels whose mean probability is `> 0.5` are the structure. Slices are predicted block by
    block, and a ledger records each one once it is on disk: a prediction that was interrupted
    goes on where it stopped when it is started again, and appears in the volume when no block is
    missing.

    Args:
      volume_path: a converted volume.
      workdir: the folder of a training run.
      which: its "best" or "latest" checkpoint; None takes the best if there is one.
      slices: z to predict; empty for all.
      options: see `PredictOptions`.
      overwrite: replace a result of the same name, complete or not, that follows from something
        else; a complete one of the same prediction is made anew.
      engine: who works.
      sharing: which blocks are this process's.

    Raises:
      InputError: anything that does not fit; see the message.
    """
    engine, sharing = engine or Engine(), sharing or Sharing()
    engine.check()
    sharing.check()
    if engine.name == LOCAL:
        check_device()
    if overwrite and sharing.num_shards > 1:
        raise InputError(
            "--overwrite does not go with --num_shards: one shard would remove what another has"
            " just written; choose another --suffix"
        )
    # Workers elsewhere have other current folders.
    volume_path, workdir = local_path(volume_path), local_path(workdir, flag="--checkpoint")
    work = Work(Job(volume_path, workdir, which, tuple(slices), options or PredictOptions()))
    print(f"method      {work.parts['method']}")
    print("\n".join([*work.grey_values.lines(), *work.seen.lines()]))
    names = [output.name for output in work.outputs]
    open_ones = begin(work, overwrite=overwrite)
    if not open_ones:
        return Result(names, True, {}, 0)
    todo = missing_blocks(work, open_ones)
    mine = [number for number in todo if number % sharing.num_shards == sharing.shard]
    _announce(work, todo, mine if sharing.num_shards > 1 else None)
    failed = _work_off(work, open_ones, mine, engine, sharing) if mine else {}
    left = missing_blocks(work, open_ones)
    if not left:
        finish(work, open_ones)
    return Result(names, not left, failed, len([n for n in left if n not in failed]))


def _announce(work: Work, todo: Sequence[int], mine: Sequence[int] | None) -> None:
    """How much there is to do; `mine` is the part of a shard."""
    slices, left = len(work.grid.slices), work.grid.slices_in(todo)
    text = f"slices      {slices} in {len(work.grid)} blocks, {figures(slices - left)} finished"
    if mine is not None:
        text += f"; left for this shard {figures(work.grid.slices_in(mine))} in {len(mine)} blocks"
    print(text)


def _work_off(
    work: Work, open_ones: Sequence[Output], mine: Sequence[int], engine: Engine, sharing: Sharing
) -> dict[int, str]:
    """Predicts blocks and records them; what failed, by number."""
    failed: dict[int, str] = {}
    try:
        with contextlib.ExitStack() as stack:
            ledgers = {
                output.name: stack.enter_context(
                    ledger.LedgerWriter(
                        partial_directory(work.volume.path, output.name),
                        shard=sharing.shard,
                        num_shards=sharing.num_shards,
                    )
                )
                for output in open_ones
            }
            outcomes = run(engine, work, mine)
            for outcome in track(
                outcomes,
                total=max(1, round(work.grid.slices_in(mine))),
                what="predicting",
                unit="slice",
                size=lambda outcome: work.grid.slices_in([outcome.number]),
            ):
                _record(outcome, ledgers, failed)
    # The disk can be full for a line of the ledger too.
    except (OutputError, OSError) as error:
        raise _disk_error(work, open_ones, error) from error
    return failed


def _record(
    outcome: Outcome, ledgers: dict[str, ledger.LedgerWriter], failed: dict[int, str]
) -> None:
    if outcome.checksums is None:
        failed[outcome.number] = outcome.error or "unknown"
        return
    for name, writer in ledgers.items():
        writer.add(outcome.number, outcome.checksums[name])


def _disk_error(work: Work, open_ones: Sequence[Output], error: Exception) -> InputError:
    """What to free so that the rest fits, from what the finished blocks take."""
    path = work.volume.path
    missing = missing_blocks(work, open_ones)
    finished = len(work.grid) - len(missing)
    text = f"{error}. {finished} of {len(work.grid)} blocks are finished and stay"
    if os_code(error) not in (None, errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{text}; start again for the others")
    if finished:
        used = sum(
            file.stat().st_size
            for output in open_ones
            for file in partial_directory(path, output.name).rglob("*")
            if file.is_file()
        )
        need, free = used / finished * len(missing), shutil.disk_usage(path).free
        text += f"; the others take about {amount(need)}, {amount(free)} are free"
    return InputError(f"{text}; make room on the disk of {path} and start again")
