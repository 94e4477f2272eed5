import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.errors import InputError
from vemseg_jax.train import loss_scale, record
from vemseg_jax.train.loop import train
from vemseg_jax.train.loss_scale import LossScale


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "v.zarr")


def _log(workdir):
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def test_the_scale_halves_on_overflow_and_doubles_after_many_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    scale, values = LossScale.start("float16"), []
    for finite in (False, True, True, True, True, True, True, False):
        scale = scale.after(jnp.bool_(finite))
        values.append(float(scale.value) / loss_scale.FIRST)
    assert values == [0.5, 0.5, 0.5, 1, 1, 1, 2, 1]
    assert int(scale.skipped) == 2 and int(scale.good) == 0


def test_the_scale_has_an_upper_end(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 1)
    scale = dataclasses.replace(LossScale.start("float16"), value=jnp.float32(loss_scale.LARGEST))
    assert float(scale.after(jnp.bool_(True)).value) == loss_scale.LARGEST


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_wider_exponents_need_no_scale(precision):
    assert LossScale.start(precision) is None


@pytest.mark.parametrize("method", ["supervised", "cps_cutmix"])
def test_an_overflow_changes_nothing_but_the_scale(volume, tmp_path, monkeypatch, method):
    """With a scale that float16 cannot hold, steps are skipped until it has come down."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**34)
    config = small_config(
        volume, precision="float16", steps=30, log_every=1, eval_every=0, batch_size=4
    )
    config.cps = dataclasses.replace(config.cps, method=method)
    config.data = dataclasses.replace(config.data, num_val_slices=0)
    state = train(config, tmp_path)
    skipped = int(state.loss_scale.skipped)
    assert 0 < skipped < 30
    assert float(state.loss_scale.value) == 2.0 ** (34 - skipped)
    # Adam counts the steps it took.
    (count,) = {
        int(np.ravel(x)[0])
        for path, x in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if "count" in str(path)
    }
    assert count == 30 - skipped
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.batch_stats)))
    log = _log(tmp_path)
    so_far = [0, *(line["skipped_steps"] for line in log)]
    assert so_far[1] == 1 and so_far[-1] == skipped
    skips = [after - before for before, after in itertools.pairwise(so_far)]
    assert skips == ["loss" not in line for line in log]


def test_gradients_that_overflow_at_any_scale_end_the_run(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SMALLEST", loss_scale.FIRST / 4)
    monkeypatch.setattr(LossScale, "after", lambda self, finite: halved(self))

    def halved(scale):
        return dataclasses.replace(scale, value=scale.value / 2, skipped=scale.skipped + 1)

    monkeypatch.setattr("vemseg_jax.train.update.all_finite", lambda grads: jnp.bool_(False))
    config = small_config(volume, precision="float16", steps=9)
    with pytest.raises(InputError, match="at step 4: not finite"):
        train(config, tmp_path)


def test_float16_goes_on_after_a_stop_with_its_scale(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**30)
    options = {"precision": "float16", "log_every": 1, "checkpoint_every": 1}
    config = small_config(volume, steps=30, **options)
    config.optimizer.schedule = "constant"  # does not depend on the length of the run
    whole = train(config, tmp_path / "whole")
    assert int(whole.loss_scale.skipped) > 0
    halted = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))
    train(halted, tmp_path / "halted")
    path = tmp_path / "halted" / "config.json"
    saved = json.loads(path.read_text())
    saved["train"]["steps"] = 30
    path.write_text(json.dumps(saved))
    jax.tree.map(np.testing.assert_array_equal, train(config, tmp_path / "halted"), whole)
