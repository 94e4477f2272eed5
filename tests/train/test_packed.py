import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vemseg_jax.train import packed as module
from vemseg_jax.train.packed import packed


def _tree(rng):
    shapes = {"a": (3, 3, 4, 8), "b": {"kernel": (50, 20), "bias": (20,)}, "gate": (1,)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.mark.parametrize("large", [1, 100, 10**6])
def test_packed_adam_with_clipping_equals_the_plain_one(monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", large)
    rng = np.random.default_rng(0)
    plain = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam())
    joined = packed(plain)
    params = _tree(rng)
    states = [plain.init(params), joined.init(params)]
    for _ in range(3):
        grads = _tree(rng)
        expected, states[0] = plain.update(grads, states[0], params)
        found, states[1] = joined.update(grads, states[1], params)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for e, f in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-6)


def test_small_tensors_are_one_vector_and_large_ones_stay():
    params = {"small": jnp.ones((3, 5)), "large": jnp.ones((module.LARGE,)), "bias": jnp.ones(7)}
    state = packed(optax.trace(0.9)).init(params)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == [(22,), (module.LARGE,)]
