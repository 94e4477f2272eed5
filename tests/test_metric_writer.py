import json
import sys

import pytest

from vemseg_jax.errors import InputError
from vemseg_jax.metric_writer import MetricWriter


def _steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]


def test_what_a_killed_run_logged_after_its_checkpoint_is_dropped(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0, tensorboard=False)
    for step in (10, 20, 30):
        writer.write(step, {"loss": 1 / step})
    writer.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 40, "lo')
    writer = MetricWriter(tmp_path, first_step=20, tensorboard=False)
    writer.write(30, {"loss": 0.5})
    writer.close()
    assert _steps(tmp_path) == [10, 20, 30]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0, tensorboard=False)
    writer.write(1, {"loss": 0.25})
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "loss": 0.25}
    writer.close()


def test_missing_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'tensorboardX"):
        MetricWriter(tmp_path, first_step=0, tensorboard=True)
