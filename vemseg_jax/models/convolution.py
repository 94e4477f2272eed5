"""Convolutions written so that they are quick on every platform. NHWC, kernels HWIO."""

import jax
import jax.numpy as jnp
from jax import lax

# Channels that one dense convolution should have on a CPU, see `grouped_conv2d`.
DENSE_CHANNELS = 32


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Convolves `x: [b, h, w, c]` with `kernel: [kh, kw, c, features]`, zero padding."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(padding, padding), (padding, padding)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _block_diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """The dense kernel `[kh, kw, c, features]` of a grouped `[kh, kw, c / groups, features]`."""
    kh, kw, channels, features = kernel.shape
    blocks = kernel.reshape(kh, kw, channels, groups, features // groups)
    eye = jnp.eye(groups, dtype=kernel.dtype)
    dense = blocks[:, :, None] * eye[:, None, :, None]
    return dense.reshape(kh, kw, groups * channels, features)


def grouped_conv2d(
    x: jax.Array, kernel: jax.Array, *, groups: int, stride: int = 1, padding: int = 0
) -> jax.Array:
    """Grouped convolution of `x: [b, h, w, c]` with `kernel: [kh, kw, c / groups, features]`.

    XLA's own gradient of a grouped convolution is up to 200 times slower on a CPU than a dense
    one of the same size, and one convolution per group is slow for groups of few channels and
    long to compile. So on a CPU neighbouring groups share a dense convolution of at least
    `DENSE_CHANNELS` channels whose kernel is zero between them (measured in
    `benchmarks/grouped_convolution.py`); elsewhere the native form is used.
    """
    if groups == 1:
        return conv2d(x, kernel, stride=stride, padding=padding)
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=[(padding, padding), (padding, padding)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    together = min(groups, max(1, -(-DENSE_CHANNELS // kernel.shape[2])))
    while groups % together:
        together += 1
    parts = groups // together
    outputs = [
        conv2d(xs, _block_diagonal(ks, together), stride=stride, padding=padding)
        for xs, ks in zip(jnp.split(x, parts, -1), jnp.split(kernel, parts, -1), strict=True)
    ]
    return outputs[0] if parts == 1 else jnp.concatenate(outputs, -1)
