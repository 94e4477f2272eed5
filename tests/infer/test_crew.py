"""Workers of dask that come late, die and come back."""

import threading

import pytest

from vemseg_jax.errors import InputError
from vemseg_jax.infer import crew
from vemseg_jax.infer.engines import Engine

KEYS = [f"task-{n}" for n in range(40)]


class Future:
    def __init__(self, key):
        self.key, self.status, self._call = key, "pending", None

    def add_done_callback(self, call):
        self._call = call
        if self.status != "pending":
            call(self)

    def finish(self, status="finished"):
        self.status = status
        if self._call is not None:
            self._call(self)


class Client:
    """A scheduler of which the test says how many threads it has."""

    def __init__(self, *threads):
        self.status, self.asked, self._threads = "running", 0, list(threads)

    def nthreads(self):
        self.asked += 1
        # Else a crew that does not grow would be asked for ever.
        assert self.asked < 1000
        count = self._threads.pop(0) if len(self._threads) > 1 else self._threads[0]
        return {f"worker-{n}": 1 for n in range(count)}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(crew, "ASK_SECONDS", 0.0)


def _run(client, keys=KEYS, *, until):
    """Works off the keys; the tasks that wait finish once there are `until`, all at once.

    Gives the largest number that ever waited, and the keys in their order.
    """
    waiting, most, begun = [], 0, []

    def submit(key):
        nonlocal most
        future = Future(key)
        waiting.append(future)
        begun.append(key)
        most = max(most, len(waiting))
        if len(waiting) >= until or len(begun) == len(keys):
            while waiting:
                waiting.pop().finish()
        return future

    found = [future.key for future in crew.finished(client, submit, keys)]
    return most, found


def test_workers_that_come_late_get_tasks_before_any_task_is_finished():
    # Two tasks wait for the first worker; none finishes until 16 are there.
    most, found = _run(Client(0, 0, 0, 8), until=16)
    assert most == 16
    assert sorted(found) == sorted(KEYS)


def test_no_more_tasks_than_the_workers_there_are_can_take():
    most, found = _run(Client(3), until=6)
    assert most == 6
    assert sorted(found) == sorted(KEYS)


def test_workers_that_have_died_get_no_more_tasks():
    most, found = _run(Client(8, 0), KEYS[:18], until=16)
    assert most == 16 and len(found) == 18


def test_it_is_said_when_there_are_no_workers(capsys):
    _run(Client(0, 0, 4, 4, 0, 4), until=2)
    assert capsys.readouterr().out.splitlines() == [
        "workers     0, waiting for them",
        "workers     4",
        "workers     0, waiting for them",
        "workers     4",
    ]


def test_a_scheduler_that_has_gone_is_said(monkeypatch):
    monkeypatch.setattr(crew, "LOST_SECONDS", 0.0)
    client = Client(1)

    def submit(key):
        client.status = "connecting"
        return Future(key)

    with pytest.raises(InputError, match="the dask scheduler has gone; finished blocks are kept"):
        list(crew.finished(client, submit, KEYS))
    lost = Future("a")
    lost.add_done_callback(lambda future: None)
    lost.finish("cancelled")
    with pytest.raises(InputError, match="scheduler has gone"):
        crew.failure(lost)


# Passes only with eight tasks at it at once.
TOGETHER = threading.Barrier(8, timeout=60)


def _meet():
    return TOGETHER.wait() >= 0


def test_eight_workers_that_come_late_work_at_the_same_time(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(crew, "ASK_SECONDS", 0.01)
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def submit(key):
            return client.submit(_meet, key=key, pure=False)

        found = crew.finished(client, submit, KEYS)
        cluster.scale(8)
        assert all(crew.failure(future) is None and future.result() for future in found)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine("slurm"), "--engine=slurm: there is no such engine; the engines are local"),
        (Engine(""), "--engine=: there is no such engine"),
        (Engine("dask", workers=0), "--workers=0: give at least 1"),
        (Engine("local", workers=4), "--workers=4: only --engine=dask without a scheduler"),
        (Engine("dask", scheduler="tcp://a:1", workers=4), "--workers=4: only --engine=dask"),
        (Engine("local", scheduler="tcp://a:1"), "belong to --engine=dask"),
    ],
)
def test_an_engine_that_is_not_there_is_refused(engine, message):
    with pytest.raises(InputError, match=message):
        engine.check()


def test_workers_have_one_default():
    from vemseg_jax.cli import predict

    assert predict._WORKERS.default == Engine().workers
