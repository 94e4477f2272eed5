import pytest

from vemseg_jax import progress


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
