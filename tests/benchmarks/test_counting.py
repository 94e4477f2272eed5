import jax
import jax.numpy as jnp
import pytest

from vemseg_jax.models import convolution


def _by_xla(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_bodies_of_loops_count_as_often_as_they_run():
    from counting import count_flops

    @jax.jit
    def nested(x):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x @ x, None, length=3)[0]

    assert count_flops(nested, jnp.ones((64, 64))) == 16 * 2 * 64**3


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride, size, padding", [(1, 3, (1, 2)), (2, 3, (1, 1)), (2, 2, (0, 0))])
def test_convolutions_and_their_gradients_count_as_xla_counts_them(groups, stride, size, padding):
    from counting import count_flops

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [padding, padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def both(x, kernel, dy):
        return jax.vjp(convolve, x, kernel)[1](dy)

    x, kernel = jnp.ones((3, 12, 14, 8)), jnp.ones((size, size, 8 // groups, 16))
    dy = jnp.ones(jax.eval_shape(convolve, x, kernel).shape)
    assert count_flops(convolve, x, kernel) == _by_xla(convolve, x, kernel)
    assert count_flops(both, x, kernel, dy) == pytest.approx(_by_xla(both, x, kernel, dy), rel=1e-3)


def test_products_count_as_xla_counts_them():
    from counting import count_flops

    def product(a, b):
        return jnp.einsum("nhqd,nhkd->nhqk", a, b)

    a, b = jnp.ones((2, 3, 5, 7)), jnp.ones((2, 3, 11, 7))
    assert count_flops(product, a, b) == _by_xla(product, a, b) == 2 * 2 * 3 * 5 * 11 * 7


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


def test_zeros_between_groups_do_not_count_in_the_plain_form():
    from counting import count_flops, plain_forms

    x, kernel = jnp.ones((1, 16, 16, 32)), jnp.ones((1, 1, 4, 32))

    @jax.jit
    def grouped(x, kernel):
        return convolution.grouped_conv2d(x, [kernel], groups=8)

    products = 16 * 16 * 4 * 32
    assert count_flops(grouped, x, kernel) == 2 * 8 * products
    with plain_forms():
        assert count_flops(grouped, x, kernel) == 2 * products
    assert count_flops(grouped, x, kernel) == 2 * 8 * products
