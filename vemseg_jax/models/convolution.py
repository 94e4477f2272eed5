"""Convolutions written so that they are quick on every platform. NHWC, kernels HWIO."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
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
    eye = np.eye(groups).astype(kernel.dtype)
    dense = blocks[:, :, None] * eye[:, None, :, None]
    return dense.reshape(kh, kw, groups * channels, features)


def grouped_conv2d(
    x: jax.Array,
    kernels: Sequence[jax.Array],
    *,
    groups: int,
    stride: int = 1,
    padding: int = 0,
) -> jax.Array:
    """Grouped convolutions of one map with several kernels, their results joined by channel.

    `x: [b, h, w, c]` and each kernel `[kh, kw, c / groups, features]`, all of one shape; the
    result is `[b, h', w', kernels * features]`. Together they cost less than one by one.

    XLA's own gradient of a grouped convolution is up to 200 times slower on a CPU than a dense
    one of the same size, and one convolution per group is slow for groups of few channels and
    long to compile. So on a CPU neighbouring groups share a dense convolution of at least
    `DENSE_CHANNELS` channels whose kernel is zero between them (measured in
    `benchmarks/grouped_convolution.py`); elsewhere the native form is used.
    """
    if groups == 1:
        return conv2d(x, jnp.concatenate(kernels, -1), stride=stride, padding=padding)
    if jax.default_backend() != "cpu":
        return jnp.concatenate(
            [_native(x, kernel, groups, stride, padding) for kernel in kernels], -1
        )
    together = min(groups, max(1, -(-DENSE_CHANNELS // kernels[0].shape[2])))
    while groups % together:
        together += 1
    parts = groups // together
    outputs = []
    for n, xs in enumerate(jnp.split(x, parts, -1)):
        width = kernels[0].shape[-1] // parts
        dense = [_block_diagonal(k[..., n * width : (n + 1) * width], together) for k in kernels]
        y = conv2d(xs, jnp.concatenate(dense, -1), stride=stride, padding=padding)
        if parts == 1:
            return y
        outputs.append(jnp.split(y, len(kernels), -1))
    return jnp.concatenate([y for of_kernel in zip(*outputs, strict=True) for y in of_kernel], -1)


def _native(x: jax.Array, kernel: jax.Array, groups: int, stride: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(padding, padding), (padding, padding)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
