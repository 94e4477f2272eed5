import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.resize import resize_bilinear, upsample2x_aligned


def test_shrinking_by_four_is_the_mean_of_the_middle_pixels():
    x = np.random.default_rng(0).random((2, 16, 24, 3), np.float32)
    middle = sum(x[:, a::4, b::4] for a in (1, 2) for b in (1, 2)) / 4
    np.testing.assert_allclose(resize_bilinear(x, (4, 6)), middle, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 7)])
def test_upsampling_aligns_the_corners(shape):
    h, w = shape
    x = np.random.default_rng(0).random((1, h, w, 2))
    found = upsample2x_aligned(jnp.asarray(x, jnp.float32))
    rows = np.linspace(0, h - 1, 2 * h)
    cols = np.linspace(0, w - 1, 2 * w)
    for c in range(2):
        across = np.stack([np.interp(cols, np.arange(w), row) for row in x[0, :, :, c]])
        expected = np.stack([np.interp(rows, np.arange(h), col) for col in across.T], 1)
        np.testing.assert_allclose(found[0, ..., c], expected, atol=1e-6)


def test_upsampling_gradient_is_the_transpose():
    x, y = jnp.ones((1, 3, 4, 1)), jnp.asarray(np.random.default_rng(0).random((1, 6, 8, 1)))
    _, pull = jax.vjp(upsample2x_aligned, x)
    np.testing.assert_allclose(
        pull(y.astype(x.dtype))[0].sum(), (y * upsample2x_aligned(x)).sum(), rtol=1e-5
    )
