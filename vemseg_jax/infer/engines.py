"""Who works on the blocks: this process, or workers of dask."""

import contextlib
import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import jax

from vemseg_jax.commands import install
from vemseg_jax.errors import InputError
from vemseg_jax.infer import crew
from vemseg_jax.infer.grid import Block
from vemseg_jax.infer.job import BlockError, Job
from vemseg_jax.infer.outputs import Checksums
from vemseg_jax.infer.work import Work, open_work

LOCAL, DASK = "local", "dask"
ENGINES = (LOCAL, DASK)
DEFAULT_WORKERS = 1
# Blocks that are read ahead, and those that the device has or that wait to be written.
READ_AHEAD, MOST_WAITING = 2, 2
WRITERS = 2
RETRIES = 3
CONNECT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a block.

    Attributes:
      number: of the block.
      checksums: by label image, once it is on disk.
      error: why it failed, in place of them.
    """

    number: int
    checksums: dict[str, Checksums] | None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where to work.

    Attributes:
      name: "local" or "dask".
      scheduler: address of a dask scheduler, such as tcp://10.0.0.1:8786.
      scheduler_file: file that `dask scheduler --scheduler-file` wrote.
      workers: processes on this machine, of "dask" without a scheduler.
    """

    name: str = LOCAL
    scheduler: str | None = None
    scheduler_file: Path | None = None
    workers: int = DEFAULT_WORKERS

    def check(self) -> None:
        """Raises InputError for values that do not fit."""
        if self.name not in ENGINES:
            raise InputError(
                f"--engine={self.name}: there is no such engine; the engines are local"
                " (this process) and dask (its workers, also those that SLURM starts)"
            )
        given = self.scheduler is not None, self.scheduler_file is not None
        if self.name == LOCAL and any(given):
            raise InputError("--scheduler and --scheduler_file belong to --engine=dask")
        if all(given):
            raise InputError("--scheduler and --scheduler_file: give one of them")
        if self.workers < 1:
            raise InputError(f"--workers={self.workers}: give at least 1")
        if self.workers != DEFAULT_WORKERS and (self.name == LOCAL or any(given)):
            raise InputError(
                f"--workers={self.workers}: only --engine=dask without a scheduler starts workers;"
                " leave it out"
            )
        if self.scheduler_file is not None and not self.scheduler_file.exists():
            raise InputError(
                f"--scheduler_file={self.scheduler_file}: not there; start one with dask scheduler"
                " --scheduler-file"
            )


def run(engine: Engine, work: Work, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Predicts blocks and yields what became of each, in the order in which they finish.

    Raises:
      InputError: nothing more can be done: the disk is full, the device's memory does not do, the
        scheduler cannot be reached.
    """
    return _run_dask(engine, work, numbers) if engine.name == DASK else _run_local(work, numbers)


def _read(work: Work, block: Block) -> Any:
    try:
        return work.read(block)
    except BlockError as error:
        return error


def _store(work: Work, block: Block, results: dict[str, jax.Array]) -> Outcome:
    try:
        with _device_errors(work):
            return Outcome(block.number, work.store(block, results))
    except BlockError as error:
        return Outcome(block.number, None, str(error))


def _run_local(work: Work, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Reading, the device, fetching and writing overlap."""
    with ThreadPoolExecutor(READ_AHEAD) as readers, ThreadPoolExecutor(WRITERS) as writers:
        reading: deque[tuple[Block, Future]] = deque()
        writing: deque[Future] = deque()
        remaining = iter(numbers)
        try:
            while True:
                for number in islice(remaining, READ_AHEAD + 1 - len(reading)):
                    block = work.grid[number]
                    reading.append((block, readers.submit(_read, work, block)))
                if not reading:
                    break
                block, future = reading.popleft()
                planes = future.result()
                if isinstance(planes, BlockError):
                    yield Outcome(block.number, None, str(planes))
                    continue
                with _device_errors(work):
                    results = work.predict(block, planes)
                writing.append(writers.submit(_store, work, block, results))
                while len(writing) > MOST_WAITING:
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            for each in (*[future for _, future in reading], *writing):
                each.cancel()


@contextlib.contextmanager
def _device_errors(work: Work) -> Iterator[None]:
    """Says what to do where the device's memory is too small."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"the memory of {jax.devices()[0].device_kind} is too small for"
            f" --batch_size={work.job.options.batch_size} with {work.parts['method']}; a smaller"
            " one or --method=window needs less; finished blocks are kept"
        ) from error


def predict_block(job: Job, number: int, expected: str) -> Outcome:
    """One block from reading to writing, as a worker elsewhere does it.

    Args:
      job: what to predict.
      number: of the block.
      expected: fingerprint of the work, so that a worker that sees other files is noticed.
    """
    try:
        work = open_work(job, expected)
    except InputError as error:
        return Outcome(number, None, f"a worker cannot take part: {error}")
    block = work.grid[number]
    planes = _read(work, block)
    if isinstance(planes, BlockError):
        return Outcome(number, None, str(planes))
    with _device_errors(work):
        return _store(work, block, work.predict(block, planes))


def _run_dask(engine: Engine, work: Work, numbers: Sequence[int]) -> Iterator[Outcome]:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            f"--engine=dask needs the package distributed; run: {install('dask')}"
        ) from error
    # Its schedulers and workers tell of every coming and going.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # Workers may run in other folders.
    job = dataclasses.replace(
        work.job, volume=work.job.volume.absolute(), workdir=work.job.workdir.absolute()
    )
    by_key = {f"block-{work.fingerprint}-{number}": number for number in numbers}

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(engine, stack, distributed))
        stack.enter_context(crew.quiet_end())

        def submit(key: str) -> Any:
            return client.submit(
                predict_block,
                job,
                by_key[key],
                work.fingerprint,
                key=key,
                retries=RETRIES,
                pure=False,
            )

        for future in crew.finished(client, submit, list(by_key)):
            failure = crew.failure(future)
            if failure is None:
                yield future.result()
            elif isinstance(failure, InputError):
                raise failure
            else:
                yield Outcome(by_key[future.key], None, f"{type(failure).__name__}: {failure}")
            # A key that is used again, by the next run, must be forgotten.
            future.release()


def _client(engine: Engine, stack: contextlib.ExitStack, distributed: Any) -> Any:
    """A client of the scheduler asked for, or of a cluster of processes on this machine."""
    where: dict[str, Any] = {}
    if engine.scheduler_file is not None:
        where, flag = {"scheduler_file": str(engine.scheduler_file)}, "scheduler_file"
    elif engine.scheduler is not None:
        where, flag = {"address": engine.scheduler}, "scheduler"
    if where:
        try:
            return distributed.Client(**where, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--{flag}={next(iter(where.values()))}: no scheduler answers there ({error})"
            ) from error
    cluster = stack.enter_context(
        distributed.LocalCluster(
            n_workers=engine.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
        )
    )
    client = distributed.Client(cluster)
    crew.shield(client, distributed.WorkerPlugin)
    return client
