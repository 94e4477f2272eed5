"""Counts that say how much work a step is, without a clock.

A change that makes a network slower shows here on any machine. A count that falls is good news:
write the new one down.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.config import CPSConfig, DataConfig, ExperimentConfig, LossConfig, TrainConfig
from vemseg_jax.models import registry
from vemseg_jax.parallel import Placement
from vemseg_jax.train import loop
from vemseg_jax.train.loop import train

# jax versions count a little differently, and fuse differently.
SLACK, BYTES_SLACK = 1.02, 1.1
DEPTH3 = {"encoder_depth": 3, "decoder_channels": (128, 64, 16)}
FRACTAL = {"filters": 16, "depth": 2, "psp_depth": 2, "heads": 2, "norm_groups": 2}
# Network, options, loss, method, batch; of pairs, only the one with more passes is compiled.
STEPS = {
    "small_unet": ("small_unet", {}, "soft_dice", "supervised", 2),
    "resunet": ("resunet", {}, "soft_dice", "supervised", 1),
    "unetplusplus": ("unetplusplus", DEPTH3, "soft_dice", "supervised", 2),
    "fractal_resnet": ("fractal_resnet", FRACTAL, "fractal_tanimoto", "supervised", 1),
    "cps": ("unetplusplus", DEPTH3, "soft_dice", "cps", 4),
    "cps_cutmix": ("unetplusplus", DEPTH3, "soft_dice", "cps_cutmix", 4),
}
# Parameters of all networks trained; GFLOP of convolutions and products as written and gigabytes
# that the step reads and writes once compiled for a CPU, for crops of 64 x 64 (sums are not fused
# there, see `xla_guard`, which is 12 % of the small network's).
COUNTS = {
    "small_unet": (269_009, 1.348, 0.1733),
    "resunet": (32_974_401, 30.19, 3.670),
    "unetplusplus": (2_017_937, 5.242, 0.4456),
    "fractal_resnet": (58_071, 1.399, 0.2622),
    "cps": (2 * 2_017_937, 20.97, None),
    "cps_cutmix": (2 * 2_017_937, 27.98, 1.687),
}


def _lowered(name):
    from counting import count_flops
    from steps import prepare_step

    network, options, loss, method, batch = STEPS[name]
    config = ExperimentConfig(
        model=registry.model_config(network, **options),
        data=DataConfig(crop_size=64),
        loss=LossConfig(name=loss),
        cps=CPSConfig(method=method),
        train=TrainConfig(batch_size=batch, steps=10),
    )
    prepared = prepare_step(config, Placement())
    parameters = prepared.parameters * (2 if method != "supervised" else 1)
    arguments = prepared.step, prepared.state, *prepared.data
    return parameters, count_flops(*arguments) / 1e9, prepared.step.lower(*arguments[1:])


def _groups(compiled):
    found = re.findall(r"(?:feature|batch)_group_count=(\d+)", compiled.as_text())
    return [int(count) for count in found]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_no_more_work_than_it_was(name):
    parameters, gigaflops, lowered = _lowered(name)
    expected = COUNTS[name]
    assert parameters == expected[0]
    assert 0.8 * expected[1] < gigaflops <= SLACK * expected[1], "if less work: write it down"
    if expected[2] is None:
        return
    compiled = lowered.compile()
    gigabytes = compiled.cost_analysis()["bytes accessed"] / 1e9
    assert 0.8 * expected[2] < gigabytes <= BYTES_SLACK * expected[2], "if less: write it down"
    # Those of groups are 10 to 200 times slower than dense ones on a CPU.
    assert all(count == 1 for count in _groups(compiled))


def test_a_grouped_convolution_would_be_seen():
    def grouped(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2
        )

    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 2, 4))
    assert max(_groups(jax.jit(grouped).lower(x, kernel).compile())) > 1


@pytest.mark.parametrize("at_once, expected", [(1, 20), (5, 4), (10, 2)])
def test_steps_are_dispatched_together(tmp_path, monkeypatch, at_once, expected):
    volume = write_volume(tmp_path / "v.zarr")
    calls, prepare = [], loop.prepare

    def counted(function):
        def call(*arguments):
            calls.append(function)
            return function(*arguments)

        return call

    def prepared(*arguments):
        run = prepare(*arguments)
        run.step, run.steps = counted(run.step), counted(run.steps)
        return run

    monkeypatch.setattr(loop, "prepare", prepared)
    config = small_config(
        volume,
        steps=20,
        log_every=10,
        eval_every=0,
        checkpoint_every=20,
        steps_per_dispatch=at_once,
    )
    train(config, tmp_path / "run")
    assert len(calls) == expected
