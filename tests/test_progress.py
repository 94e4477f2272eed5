import pytest

from vemseg_jax import progress, units
from vemseg_jax.infer.grid import make_grid


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.6, "0:01:00"), (7384, "2:03:04")])
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_plain_lines_name_the_share_and_always_come_at_the_end(capsys):
    assert list(progress.track(iter("abc"), total=3, what="reading", unit="slice")) == list("abc")
    err = capsys.readouterr().err
    assert err.startswith("reading: 3/3 slices, 100 %") and err.endswith("0:00:00 left\n")


def test_throughput_leaves_out_compilation_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    meter = progress.Meter(batch_size=4)
    now[0] = 60.0  # compiling
    meter.add(10)
    assert meter.rate() == pytest.approx(4 * 10 / 60)
    now[0] = 65.0
    meter.add(10)
    now[0] = 100.0  # validating
    meter.pause()
    now[0] = 105.0
    meter.add(10)
    assert meter.rate() == pytest.approx(4 * 20 / 10)
    assert meter.left(6) == pytest.approx(3)


def _lines(monkeypatch, capsys, seconds, items, **options):
    """What is said of items that take so long each."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in progress.track(items, what="predicting", unit="slice", **options):
        now[0] += seconds
    return capsys.readouterr().err.splitlines()


def test_blocks_count_as_the_slices_they_hold(monkeypatch, capsys):
    lines = _lines(monkeypatch, capsys, 11, [8, 8, 4], total=20, size=float)
    assert [line.split(",")[0] for line in lines] == [
        f"predicting: {n}/20 slices" for n in (8, 16, 20)
    ]
    lines = _lines(monkeypatch, capsys, 11, [0.25] * 8, total=2, size=float)
    assert lines[-1].startswith("predicting: 2/2 slices, 100 %")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "4 slices/s"),
        (0.003, "333 slices/s"),
        (13, "13 s a slice"),
        (7384, "2:03:04 a slice"),
    ],
)
def test_rates_have_no_powers_of_ten(monkeypatch, capsys, seconds, text):
    line = _lines(monkeypatch, capsys, seconds, range(3), total=3)[-1]
    assert text in line and "e-" not in line


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (900, "900 bytes"),
        (1024, "1 KiB"),
        (1.3e6, "1.24 MiB"),
        (2**30 - 1, "1 GiB"),
        (130.4 * 2**20, "130 MiB"),
        (51e9, "47.5 GiB"),
        (10e12, "9313 GiB"),
    ],
)
def test_amounts(size, text):
    assert units.amount(size) == text


def test_a_slab_of_small_slices_is_several_blocks():
    assert len(make_grid((192, 256), range(20))) == 10
    assert len(make_grid((192, 256), range(2526))) == 61  # as many as 2 million pixels have
    assert len(make_grid((64, 64), range(3))) == 3
    assert len(make_grid((64, 64), range(30), depth=30)) == 1
    parts = make_grid((4096, 2048), range(3))
    assert parts.slices_in(range(len(parts))) == 3 and parts.slices_in([0]) == 0.5
