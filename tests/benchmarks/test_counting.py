import jax
import jax.numpy as jnp
import pytest

from vemseg_jax.models import convolution


def test_bodies_of_loops_count_as_often_as_they_run():
    from counting import count_flops

    @jax.jit
    def nested(x):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x @ x, None, length=3)[0]

    assert count_flops(nested, jnp.ones((64, 64))) == pytest.approx(16 * 2 * 64**3, rel=1e-4)


def test_the_form_of_a_gradient_does_not_change_the_count(monkeypatch):
    from counting import count_flops

    def count(threshold):
        monkeypatch.setattr(convolution, "PRODUCT_FLOPS", threshold)
        monkeypatch.setattr(convolution, "PRODUCT_PIXELS", 256)

        def loss(kernel, x):
            return jnp.sum(convolution.conv2d(x, kernel, padding=1) ** 2)

        return count_flops(
            jax.jit(jax.grad(loss)), jnp.ones((3, 3, 32, 32)), jnp.ones((2, 48, 48, 32))
        )

    assert count(0) == pytest.approx(count(float("inf")), rel=0.05)
