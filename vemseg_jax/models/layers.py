"""Layers that every network shares, equal to torch's in layout-free arithmetic. NHWC inside."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vemseg_jax.models.convolution import grouped_conv2d
from vemseg_jax.models.standardize import EPSILON, standardize

# torch's default; that of flax differs.
BATCH_NORM_MOMENTUM = 0.1

Dtype = Any


def uniform_fan_in(fan_in: int) -> Callable[..., jax.Array]:
    """Initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for convolutions."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """2D convolution `[b, h, w, c] -> [b, h', w', features]` with zero padding and a bias."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = True
    groups: int = 1
    kernel_init: Callable[..., jax.Array] | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Kernel and bias for an input of so many channels."""
        size, channels = self.kernel_size, channels // self.groups
        init = uniform_fan_in(size * size * channels)
        shape = (size, size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init or init, shape, jnp.float32)
        if not self.use_bias:
            return kernel.astype(self.dtype), None
        bias = self.param("bias", init, (self.features,), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution; `padding=None` keeps the size at stride 1.

        With `groups`, input and output channels fall into that many runs, and each run of the
        output sees its run of the input only: `kernel: [kh, kw, c / groups, features]`.
        """
        return joined_conv([self], x)


def joined_conv(convs: Sequence[Conv], x: jax.Array) -> jax.Array:
    """Convolutions of one map that differ in their weights alone, joined by channel."""
    first = convs[0]
    kernels, biases = zip(*(conv.weights(x.shape[-1]) for conv in convs), strict=True)
    y = grouped_conv2d(
        x.astype(first.dtype),
        kernels,
        groups=first.groups,
        stride=first.stride,
        padding=first.kernel_size // 2 if first.padding is None else first.padding,
    )
    return y + jnp.concatenate(biases, -1) if first.use_bias else y


class PatchConv(nn.Module):
    """Convolution whose kernel is as large as its stride: one product per patch.

    `[b, h, w, c] -> [b, h / size, w / size, features]`, h and w multiples of `size`.
    """

    features: int
    size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution."""
        b, h, w, c = x.shape
        size = self.size
        init = uniform_fan_in(size * size * c)
        kernel = self.param("kernel", init, (size, size, c, self.features), jnp.float32)
        bias = self.param("bias", init, (self.features,), jnp.float32)
        x = x.astype(self.dtype).reshape(b, h // size, size, w // size, size, c)
        y = jnp.einsum("byixjc,ijcf->byxf", x, kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)


class ConvTranspose2x(nn.Module):
    """Transposed convolution with a 2 x 2 kernel and stride 2: `[b, h, w, c] -> [b, 2h, 2w, f]`.

    Windows do not overlap, so it is one matrix product per pixel and an interleave, far cheaper
    than a dilated convolution. Parameter `kernel: [c, 2, 2, features]`.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the transposed convolution."""
        b, h, w, c = x.shape
        # torch takes the fan-in of a transposed convolution from its (in, out, kh, kw) layout.
        init = uniform_fan_in(4 * self.features)
        kernel = self.param("kernel", init, (c, 2, 2, self.features), jnp.float32)
        bias = self.param("bias", init, (self.features,), jnp.float32)
        y = jnp.einsum("bhwc,cijf->bhiwjf", x.astype(self.dtype), kernel.astype(self.dtype))
        return y.reshape(b, 2 * h, 2 * w, self.features) + bias.astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation with torch's conventions, over all axes but the last.

    Normalises with the biased variance of the batch and keeps the *unbiased* one in the running
    statistics, momentum 0.1, epsilon 1e-5 (`torch.nn.BatchNorm2d`; flax keeps the biased one).
    Statistics and parameters stay float32 whatever the input's type.
    Source: Ioffe and Szegedy 2015.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array, nn.Variable, nn.Variable]:
        """Scale, bias, running mean and running variance, `[channels]` each."""
        features = (channels,)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        return (
            scale,
            bias,
            mean,
            self.variable("batch_stats", "var", jnp.ones, features, jnp.float32),
        )

    def __call__(self, x: jax.Array, *, train: bool, copies: int = 1) -> jax.Array:
        """Normalises; with `train` uses and records the statistics of this batch.

        `copies` is how many equal pixels each pixel of `x` stands for: a map that will be
        enlarged by repetition can be normalised before that.
        """
        return _joined_batch_norm([self], x, train=train, copies=copies)


class GroupNorm(nn.Module):
    """Group normalisation with torch's epsilon, 1e-5 (flax has 1e-6), `[b, h, w, c]`.

    Each image's channels fall into `groups` runs, each normalised with its own biased variance.
    Source: Wu and He 2018.
    """

    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Scale and bias, `[channels]` each."""
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        return scale, self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

    def __call__(self, x: jax.Array, *, train: bool, copies: int = 1) -> jax.Array:
        """Normalises; the same in training and evaluation, and for copies of pixels."""
        del train, copies
        return _joined_group_norm([self], x)


def _joined_batch_norm(
    norms: Sequence[BatchNorm], x: jax.Array, *, train: bool, copies: int = 1
) -> jax.Array:
    channels = x.shape[-1] // len(norms)
    scales, biases, means, variances = zip(*(n.weights(channels) for n in norms), strict=True)
    scale, bias = jnp.concatenate(scales), jnp.concatenate(biases)
    if not train:
        factor = scale * lax.rsqrt(jnp.concatenate([v.value for v in variances]) + EPSILON)
        shift = bias - jnp.concatenate([m.value for m in means]) * factor
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return (x * factor + shift).astype(norms[0].dtype)
    y, mean, var = standardize(x, scale, bias, 0)
    y = y.astype(norms[0].dtype)
    if not norms[0].is_initializing():
        count = copies * (x.size // x.shape[-1])
        unbiased = var[0] * (count / max(count - 1, 1))
        for running, found in ((means, mean[0]), (variances, unbiased)):
            for variable, value in zip(running, jnp.split(found, len(norms)), strict=True):
                kept = (1 - BATCH_NORM_MOMENTUM) * variable.value
                variable.value = kept + BATCH_NORM_MOMENTUM * value
    return y


def _joined_group_norm(norms: Sequence[GroupNorm], x: jax.Array) -> jax.Array:
    channels = x.shape[-1] // len(norms)
    scales, biases = zip(*(norm.weights(channels) for norm in norms), strict=True)
    scale, bias = jnp.concatenate(scales), jnp.concatenate(biases)
    groups = len(norms) * norms[0].groups
    return standardize(x, scale, bias, groups)[0].astype(norms[0].dtype)


def joined_norm(norms: Sequence[BatchNorm | GroupNorm], x: jax.Array, *, train: bool) -> jax.Array:
    """Normalisations of maps joined by channel, `[b, h, w, norms * c]`, all of one kind."""
    if isinstance(norms[0], BatchNorm):
        return _joined_batch_norm(norms, x, train=train)  # type: ignore[arg-type]
    return _joined_group_norm(norms, x)  # type: ignore[arg-type]


def max_pool2x(x: jax.Array) -> jax.Array:
    """Maximum over 2 x 2 windows of `[b, h, w, c]`; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    return x.max((2, 4))


def _max_of_three(x: jax.Array, axis: int) -> jax.Array:
    """Maximum of pixels 2i - 1, 2i and 2i + 1 along an axis of even size."""
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, n, axis + 1, keepdims=False) for n in (0, 1))
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 0)
    before = jnp.pad(odd, padding, constant_values=-jnp.inf)
    return jnp.maximum(
        jnp.maximum(even, odd), lax.slice_in_dim(before, 0, odd.shape[axis], axis=axis)
    )


def max_pool3x3_stride2(x: jax.Array) -> jax.Array:
    """Maximum over 3 x 3 windows with stride 2 and padding 1, `[b, h, w, c]`, h and w even.

    One axis after the other, by slices: the gradient of a window reduction is slow on a CPU.
    """
    return _max_of_three(_max_of_three(x, 2), 1)


def pad_to(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Pads `[b, h, w, c]` with zeros to `shape`, the odd pixel at the bottom and the right."""
    rows, cols = shape[0] - x.shape[1], shape[1] - x.shape[2]
    if rows == 0 and cols == 0:
        return x
    return jnp.pad(
        x, ((0, 0), (rows // 2, rows - rows // 2), (cols // 2, cols - cols // 2), (0, 0))
    )


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """Pads `[b, h, w, c]` at the bottom and right, repeating the edge, to whole multiples."""
    rows, cols = -x.shape[1] % multiple, -x.shape[2] % multiple
    if rows == 0 and cols == 0:
        return x
    return jnp.pad(x, ((0, 0), (0, rows), (0, cols), (0, 0)), mode="edge")
