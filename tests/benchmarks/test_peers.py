"""The step of segmentation_models_pytorch beside ours, where it is installed."""

import math
from pathlib import Path

import numpy as np
import pytest
from peers import _dice, _Step, has_peer, time_torch
from steps import with_size

from vemseg_jax.losses.dice import soft_dice_loss
from vemseg_jax.study.presets import load_config

torch = pytest.importorskip("torch", reason="torch is optional")
pytest.importorskip("segmentation_models_pytorch", reason="the peer is optional")


CONFIGS = Path(__file__).parents[2] / "configs"


def _config(name):
    return with_size(load_config(CONFIGS / f"{name}.py"), batch=4, crop=32, precision="float32")


def test_only_networks_of_the_package_have_a_peer():
    assert has_peer(_config("unetplusplus")) and has_peer(_config("smp_unet"))
    assert not has_peer(_config("resunet"))


def test_its_dice_is_ours():
    rng = np.random.default_rng(0)
    prob = rng.random((2, 8, 8, 1), np.float32)
    truth = (rng.random((2, 8, 8, 1)) > 0.5).astype(np.float32)
    theirs = float(_dice(torch.from_numpy(prob), torch.from_numpy(truth), 1e-5))
    assert theirs == pytest.approx(float(soft_dice_loss(prob, truth, smooth=1e-5)), abs=1e-6)


@pytest.mark.parametrize(
    "name", ["unetplusplus_cps", "ssl_unetplusplus", "ssl_unetplusplus_cutmix"]
)
def test_a_step_moves_every_network(name):
    config = _config(name)
    step = _Step(config, channels_last=True, compiled=False)
    before = [n.segmentation_head[0].weight.detach().clone() for n in step.networks]
    step()
    assert len(before) == (1 if config.cps.method == "supervised" else 2)
    for network, weight in zip(step.networks, before, strict=True):
        assert not torch.equal(network.segmentation_head[0].weight, weight)
    timed = time_torch(config, channels_last=False, compiled=False, repeats=2)
    assert len(timed.times) == 2 and timed.parameters > 1e6 and math.isfinite(timed.first)
