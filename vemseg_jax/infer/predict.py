"""Segments the slices of a volume with a trained network, whole or saying what is missing."""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vemseg_jax.config import differences
from vemseg_jax.data.atomic import clear_replaced, lock, put_in_place, unlock, write_json
from vemseg_jax.data.label_writer import check_label_name, list_labels
from vemseg_jax.data.volume import LABELS
from vemseg_jax.errors import InputError
from vemseg_jax.infer import ledger
from vemseg_jax.infer.engines import Engine, Outcome, run
from vemseg_jax.infer.outputs import Output, OutputError, final_directory, partial_directory
from vemseg_jax.infer.work import Job, PredictOptions, Work
from vemseg_jax.progress import track

__all__ = ["Engine", "Job", "PredictOptions", "Sharing", "predict_volume"]

# Names of the longer parts are enough to tell what differs.
_LONG_PARTS = ("grid", "network", "normalization")


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
    if overwrite and sharing.num_shards > 1:
        raise InputError(
            "--overwrite does not go with --num_shards: one shard would remove what another has"
            " just written; choose another --suffix"
        )
    work = Work(Job(volume_path, workdir, which, tuple(slices), options or PredictOptions()))
    print(f"method      {work.parts['method']}")
    names = [output.name for output in work.outputs]
    open_ones = _begin(work, overwrite=overwrite)
    if not open_ones:
        return Result(names, True, {}, 0)
    todo = _missing(work, open_ones)
    mine = [number for number in todo if number % sharing.num_shards == sharing.shard]
    print(
        f"blocks      {len(work.grid)}, finished {len(work.grid) - len(todo)}"
        + (f", of this shard left {len(mine)}" if sharing.num_shards > 1 else "")
    )
    failed = _work_off(work, open_ones, mine, engine, sharing) if mine else {}
    left = _missing(work, open_ones)
    if not left:
        _finish(work, open_ones)
    return Result(names, not left, failed, len([n for n in left if n not in failed]))


def _work_off(
    work: Work, open_ones: Sequence[Output], mine: Sequence[int], engine: Engine, sharing: Sharing
) -> dict[int, str]:
    """Predicts blocks and records them; what failed, by number."""
    failed: dict[int, str] = {}
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
        try:
            outcomes = run(engine, work, mine)
            for outcome in track(outcomes, total=len(mine), what="predicting", unit="block"):
                _record(outcome, ledgers, failed)
        except OutputError as error:
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


def _missing(work: Work, open_ones: Sequence[Output]) -> list[int]:
    """Blocks that some label image lacks."""
    lacking: set[int] = set()
    for output in open_ones:
        partial = partial_directory(work.volume.path, output.name)
        if partial.exists():
            lacking.update(ledger.missing(partial))
        # Otherwise another shard has just put it in its place.
    return sorted(lacking)


def _begin(work: Work, *, overwrite: bool) -> list[Output]:
    """Prepares what is to be written; the label images that are not complete yet.

    Raises:
      InputError: something else stands there, or nothing can be written.
    """
    labels = work.volume.path / LABELS
    try:
        labels.mkdir(exist_ok=True)
        taken = lock(labels, wait=True)
    except OSError as error:
        raise _unwritable(labels, error) from error
    try:
        open_ones, stale = _open_outputs(work, overwrite=overwrite)
        for partial in stale:
            ledger.discard(partial)
        for output in open_ones:
            clear_replaced(final_directory(work.volume.path, output.name))
            ledger.write_header(partial_directory(work.volume.path, output.name), work.parts)
            work.writer(output)
    except OSError as error:
        raise _unwritable(labels, error) from error
    finally:
        unlock(taken)
    return open_ones


def _unwritable(labels: Path, error: OSError) -> InputError:
    return InputError(
        f"{labels}: cannot be written ({error.strerror or error}); predictions go into the volume:"
        " make it writable, or copy it to where there is room"
    )


def _open_outputs(work: Work, *, overwrite: bool) -> tuple[list[Output], list[Path]]:
    """Label images that are not complete, and what is to be removed for them."""
    path = work.volume.path
    partials = {o.name: partial_directory(path, o.name) for o in work.outputs}
    headers = {name: ledger.read_header(partial) for name, partial in partials.items()}
    mine = {
        name: header is not None and header["fingerprint"] == work.fingerprint
        for name, header in headers.items()
    }
    open_ones, stale = [], []
    for output in work.outputs:
        check_label_name(output.name, output.kind)
        partial, header = partials[output.name], headers[output.name]
        if not mine[output.name]:
            if header is not None and not overwrite:
                raise InputError(
                    f"{partial}: an unfinished prediction from something else"
                    f" ({_differing(header['parts'], work.parts)}); start it as it was to finish"
                    " it, give --overwrite to remove it, or choose another --suffix"
                )
            # A run that was interrupted may have finished some of its label images.
            if _is_done(work, output, overwrite=overwrite, resumed=any(mine.values())):
                continue
            if partial.exists():
                stale.append(partial)
        open_ones.append(output)
    return open_ones, stale


def _is_done(work: Work, output: Output, *, overwrite: bool, resumed: bool) -> bool:
    """Whether the label image stands there complete, from this very prediction.

    Raises:
      InputError: another one stands there and is not to be replaced.
    """
    final = final_directory(work.volume.path, output.name)
    if not final.exists():
        return False
    listed = output.name in work.volume.label_names
    kind = work.volume.label_info(output.name).get("kind") if listed else "unlisted"
    if kind != output.kind:
        raise InputError(
            f"{final}: a label of kind {kind!r} has this name; choose another --suffix for the"
            f" {output.kind}"
        )
    header = ledger.read_header(final)
    same = header is not None and header["fingerprint"] == work.fingerprint
    if same and (resumed or not overwrite):
        print(f"complete    {output.name}, nothing to do")
        return True
    if overwrite:
        return False
    found = f" from something else ({_differing(header['parts'], work.parts)})" if header else ""
    raise InputError(f"{final}: exists already{found}; give --overwrite to replace it")


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """In a few words, in what two predictions differ."""
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    short = [name for name in names if name not in _LONG_PARTS]
    texts = differences(
        {name: found.get(name) for name in short}, {name: wanted.get(name) for name in short}
    )
    return ", ".join([*texts, *(f"another {name}" for name in names if name in _LONG_PARTS)])


def _disk_error(work: Work, open_ones: Sequence[Output], error: OutputError) -> InputError:
    """What to free so that the rest fits, from what the finished blocks take."""
    path = work.volume.path
    missing = _missing(work, open_ones)
    finished = len(work.grid) - len(missing)
    text = f"{error}. {finished} of {len(work.grid)} blocks are finished and stay"
    if finished:
        used = sum(
            file.stat().st_size
            for output in open_ones
            for file in partial_directory(path, output.name).rglob("*")
            if file.is_file()
        )
        need, free = used / finished * len(missing), shutil.disk_usage(path).free
        text += f"; the others take about {_megabytes(need)}, {_megabytes(free)} are free"
    return InputError(f"{text}; make room on the disk of {path} and start again")


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _finish(work: Work, open_ones: Sequence[Output]) -> None:
    """Puts complete label images in their place; several shards may come here at once."""
    labels = work.volume.path / LABELS
    for output in open_ones:
        partial = partial_directory(work.volume.path, output.name)
        taken = lock(labels, wait=True)
        try:
            if not partial.exists():
                continue
            # A writer that was killed leaves the lock of what it wrote.
            for stale in partial.rglob("*.__lock"):
                stale.unlink()
            work.layout.write_group(
                partial, output.name, work.attributes(output), shades=output.is_shaded
            )
            complete = {"fingerprint": work.fingerprint, "blocks": len(work.grid)}
            write_json(partial / ledger.COMPLETE, complete)
            put_in_place(partial, final_directory(work.volume.path, output.name))
            clear_replaced(final_directory(work.volume.path, output.name))
        finally:
            unlock(taken)
    list_labels(labels)
