"""Predictions by several processes under dask."""

import os
import signal
import threading
import time

import pytest

from tests.infer import runs
from tests.infer.runs import SINGLE, final, partial
from tests.train.runs import write_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import engines, ledger
from vemseg_jax.infer.engines import Engine
from vemseg_jax.infer.job import Job
from vemseg_jax.infer.predict import predict_volume

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    _, workdir = runs.train_small(folder, depth=6)
    return write_volume(folder / "deep.zarr", depth=60, size=(36, 42)), workdir


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    return runs.expected_files(trained, tmp_path_factory.mktemp("expected"))


def test_a_worker_that_is_killed_costs_nothing(trained, expected, tmp_path):
    path, workdir = runs.copy(trained, tmp_path)
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:

        def kill():
            while len(ledger.read_ledger(partial(path))) < 3:
                time.sleep(0.002)
            victim = next(iter(cluster.workers.values()))
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        engine = Engine("dask", scheduler=cluster.scheduler_address)
        result = predict_volume(path, workdir, options=SINGLE, engine=engine)
        thread.join()
    assert killed and result.complete and not result.failed
    assert runs.files(final(path)) == expected


def test_by_default_dask_works_on_this_machine(trained, expected, tmp_path):
    path, workdir = runs.copy(trained, tmp_path)
    shard = path / "0" / "c" / "30" / "0" / "0"
    content = shard.read_bytes()
    shard.write_bytes(content[:-40])
    engine = Engine("dask", workers=1)
    result = predict_volume(path, workdir, options=SINGLE, engine=engine)
    assert not result.complete and list(result.failed) == [30]
    assert "slice 30 is damaged" in result.failed[30]
    shard.write_bytes(content)
    # The rest may be done by any engine.
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected


def test_a_scheduler_that_is_not_there(trained, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    missing = tmp_path / "scheduler.json"
    with pytest.raises(InputError, match="not there; start one with dask scheduler"):
        predict_volume(path, workdir, engine=Engine("dask", scheduler_file=missing))
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.2)
    nowhere = Engine("dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"--scheduler=tcp://127.0.0.1:9: no scheduler answers"):
        predict_volume(path, workdir, engine=nowhere)
    # Nothing was lost by it.
    assert predict_volume(path, workdir).complete


def test_a_worker_that_sees_something_else_says_so(trained, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    job = Job(path, workdir)
    outcome = engines.predict_block(job, 0, "another")
    assert outcome.error == (
        "a worker cannot take part: it sees another volume, checkpoint or version of this package"
    )
    outcome = engines.predict_block(Job(path, tmp_path), 0, "another")
    assert outcome.error.startswith("a worker cannot take part: ") and "checkpoint" in outcome.error
