import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.models import convolution
from vemseg_jax.models.convolution import conv2d, grouped_conv2d, upsampled_conv2d
from vemseg_jax.resize import repeat2d


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def _value_and_gradients(function, x, kernel):
    """The result, and the gradients of a random weighting of it."""
    result = function(x, kernel)
    weights = _random(*result.shape, seed=1)
    return result, *jax.grad(lambda *a: jnp.vdot(weights, function(*a)), (0, 1))(x, kernel)


def _check(function, reference, x, kernel):
    found = _value_and_gradients(function, x, kernel)
    expected = _value_and_gradients(reference, x, kernel)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4 * float(jnp.abs(e).max()))


@pytest.mark.parametrize("channels, features, groups", [(16, 16, 2), (64, 32, 16), (24, 48, 6)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", [1, 3])
def test_grouped_convolutions_equal_one_per_group(channels, features, groups, stride, kernels):
    x = _random(2, 9, 8, channels)
    weights = [_random(3, 3, channels // groups, features, seed=n) for n in range(kernels)]
    found = grouped_conv2d(x, weights, groups=groups, stride=stride, padding=1)
    parts = [
        conv2d(a, k, stride=stride, padding=1)
        for kernel in weights
        for a, k in zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    ]
    np.testing.assert_allclose(found, jnp.concatenate(parts, -1), atol=2e-5)


@pytest.mark.parametrize("batch, height, width", [(1, 5, 7), (2, 1, 1), (3, 2, 4)])
@pytest.mark.parametrize("channels, features", [(6, 4), (17, 20)])
def test_convolving_before_enlarging_equals_after(
    batch, height, width, channels, features, monkeypatch
):
    monkeypatch.setattr(convolution, "PRODUCT_FLOPS", 0)
    _check(
        upsampled_conv2d,
        lambda x, kernel: _plain(repeat2d(x, (2, 2)), kernel),
        _random(batch, height, width, channels),
        _random(3, 3, channels, features),
    )


@pytest.mark.parametrize("shape, features, size", [
    ((2, 9, 8, 17), 24, 3),
    ((2, 9, 8, 24), 17, 3),
    ((1, 2, 1, 24), 17, 3),  # smaller than the kernel
    ((3, 6, 7, 18), 18, 5),
    ((1, 7, 6, 20), 1, 3),
])  # fmt: skip
@pytest.mark.parametrize("pixels", [1, 32, 10_000])  # a row, some that leave a rest, all
def test_gradient_by_products_is_exact(shape, features, size, pixels, monkeypatch):
    x, kernel = _random(*shape), _random(size, size, shape[-1], features)
    monkeypatch.setattr(convolution, "PRODUCT_PIXELS", pixels)

    def ours():
        # Anew each time: what was traced once is not traced again.
        return lambda x, kernel: conv2d(x, kernel, padding=size // 2)

    # A small map is left to XLA, which compiles sooner.
    assert "custom_vjp" not in str(jax.make_jaxpr(ours())(x, kernel))
    flops = 2 * kernel.size * x[..., 0].size
    monkeypatch.setattr(convolution, "PRODUCT_FLOPS", flops)
    assert "custom_vjp" in str(jax.make_jaxpr(ours())(x, kernel))
    _check(ours(), _plain, x, kernel)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_gradient_by_products_is_exact_for_any_padding(padding, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT_FLOPS", 0)
    monkeypatch.setattr(convolution, "PRODUCT_PIXELS", 20)
    x, kernel = _random(2, 7, 6, 17), _random(3, 3, 17, 18)

    def plain(x, kernel):
        return convolution._conv(x, kernel, 1, ((padding,) * 2,) * 2)

    _check(lambda *a: conv2d(*a, padding=padding), plain, x, kernel)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradient_by_products_adds_up_in_float32(dtype, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT_FLOPS", 0)
    # 4096 products of 1/16: what a sum in either type would lose, it is exact in float32.
    x, kernel = jnp.ones((1, 64, 64, 17), dtype), jnp.zeros((3, 3, 17, 17), dtype)
    weights = jnp.full((1, 64, 64, 17), 1 / 16, dtype)
    gradient = jax.grad(lambda k: jnp.vdot(weights, conv2d(x, k, padding=1)).astype(jnp.float32))
    found = gradient(kernel)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[1, 1], 256.0)


@pytest.mark.parametrize(
    "shape, features, size, blocks",
    [
        ((1, 24, 10, 8), 16, 3, 8),
        ((1, 25, 10, 14), 5, 5, 5),  # 8, 7 and 6 do not divide 25
        ((2, 12, 9, 3), 3, 3, 4),
        ((1, 14, 6, 2), 2, 7, 2),  # blocks of fewer rows than the kernel has are no use
        ((1, 24, 10, 4), 17, 3, 1),  # too many channels
        ((8, 24, 10, 4), 4, 3, 1),  # a batch already
        ((1, 24, 10, 4), 4, 1, 1),
    ],
)
def test_gradient_by_blocks_of_rows_is_exact(shape, features, size, blocks):
    x, kernel = _random(*shape), _random(size, size, shape[-1], features)

    def ours(x, kernel):
        return conv2d(x, kernel, padding=size // 2)

    assert ("custom_vjp" in str(jax.make_jaxpr(ours)(x, kernel))) == (blocks > 1)
    assert blocks == 1 or convolution._row_blocks(x, size) == blocks
    _check(ours, _plain, x, kernel)


@pytest.mark.parametrize(
    "side, channels, features, idle",
    [
        (256, 32, 32, True),
        (256, 48, 32, False),
        (128, 32, 128, True),
        (128, 56, 64, True),
        (128, 60, 64, False),
        (256, 52, 16, False),
        (64, 256, 64, True),  # however many channels: one tile
        (64, 64, 128, False),
        (256, 16, 16, False),  # Eigen's anyway
        (16, 32, 32, False),  # of no weight
    ],
)
def test_what_takes_one_core_is_known(side, channels, features, idle):
    def leaves(dtype):
        x, y = (2, side, side, channels), (2, side, side, features)
        return convolution._leaves_a_core_idle(x, (3, 3, channels, features), y, dtype)

    assert leaves(jnp.float32) == idle
    assert not leaves(jnp.bfloat16)


@pytest.mark.parametrize("shape, channels", [((2, 9, 8), (17, 24)), ((1, 3, 2), (24, 1))])
@pytest.mark.parametrize("size", [3, 5])
def test_one_more_row_changes_nothing(shape, channels, size, monkeypatch):
    monkeypatch.setattr(convolution, "THREADED_FLOPS", 0)
    x, kernel = _random(*shape, channels[0]), _random(size, size, *channels)

    def ours(x, kernel):
        return conv2d(x, kernel, padding=size // 2)

    taller = f"{shape[0]},{shape[1] + 1},{shape[2]}"
    assert f"[{taller},{channels[1]}] = conv" in str(jax.make_jaxpr(ours)(x, kernel))
    gradient = jax.make_jaxpr(jax.grad(lambda x: ours(x, kernel).sum()))(x)
    assert f"[{taller},{channels[0]}] = conv" in str(gradient)
    _check(ours, _plain, x, kernel)


def test_one_more_row_changes_nothing_before_enlarging(monkeypatch):
    monkeypatch.setattr(convolution, "THREADED_FLOPS", 0)
    _check(
        upsampled_conv2d,
        lambda x, kernel: _plain(repeat2d(x, (2, 2)), kernel),
        _random(2, 6, 5, 20),
        _random(3, 3, 20, 17),
    )
