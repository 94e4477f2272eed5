import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vemseg_jax.config import OptimizerConfig
from vemseg_jax.train.optimizer import create_optimizer, learning_rate
from vemseg_jax.train.schedules import consistency_ramp, warmup_poly_schedule


def test_clean_warmup_has_no_lost_step_and_no_jump():
    rate = warmup_poly_schedule(base=1e-3, max_steps=100, warmup_steps=10)
    rates = np.asarray([rate(jnp.asarray(step)) for step in range(101)])
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert np.all(np.diff(rates[:10]) > 0) and np.all(np.diff(rates[10:]) < 0)
    assert rates[99] > 0 and rates[100] == 0


def test_power_and_no_warmup():
    rate = warmup_poly_schedule(base=1.0, max_steps=10, warmup_steps=0, power=2.0)
    assert rate(jnp.asarray(0)) == 1
    assert rate(jnp.asarray(5)) == pytest.approx(0.25)


def test_warmup_longer_than_the_run_is_cut():
    rate = learning_rate(OptimizerConfig(warmup_steps=1000), steps=10)
    assert rate(jnp.asarray(9)) == pytest.approx(1e-3)


def test_gradients_are_clipped_to_their_global_norm():
    optimizer = create_optimizer(OptimizerConfig(clip_norm=1.0, schedule="constant"), steps=10)
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    grads = {"a": jnp.full(3, 30.0), "b": jnp.full(4, -40.0)}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    norm = np.sqrt(3 * 30.0**2 + 4 * 40.0**2)
    # Adam's first moment after one step is a tenth of the gradient it saw.
    moments = optax.tree_utils.tree_get(state, "mu")["small"]
    np.testing.assert_allclose(moments, 0.1 / norm * np.repeat([30, -40], [3, 4]), rtol=1e-5)


def test_ramp_is_flat_before_and_after():
    np.testing.assert_allclose(consistency_ramp([0, 5, 20, 90]), [1e-5, 1e-5, 1, 1], rtol=1e-12)
