"""Convolutions written so that they are quick on every platform. NHWC, kernels HWIO."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Channels that one dense convolution should have on a CPU, see `grouped_conv2d`.
DENSE_CHANNELS = 32

# Up to how many channels `_conv_with_blocked_gradient` is for, and into how large a batch it cuts
# an image.
BLOCKED_CHANNELS = 16
BLOCKED_BATCH = 8
# FLOPs from which a kernel gradient is quicker by `_conv_with_product_gradient`, and how many
# pixels that takes at a time, so that what it gathers stays in the cache.
PRODUCT_FLOPS = 5e8
PRODUCT_PIXELS = 2048


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Convolves `x: [b, h, w, c]` with `kernel: [kh, kw, c, features]`, zero padding."""
    if stride == 1:
        return _stride_one(x, kernel, _same(padding))
    return _conv(x, kernel, stride, _same(padding))


Paddings = tuple[tuple[int, int], tuple[int, int]]


def _same(padding: int) -> Paddings:
    return (padding, padding), (padding, padding)


def _conv(
    x: jax.Array, kernel: jax.Array, stride: int, paddings: Paddings, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=paddings,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _stride_one(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> jax.Array:
    """A convolution of stride 1, with the kernel gradient that is quick on this platform."""
    size, _, *channels = kernel.shape
    if jax.default_backend() != "cpu" or size == 1:
        return _conv(x, kernel, 1, paddings)
    if max(channels) <= BLOCKED_CHANNELS:
        centred = size % 2 == 1 and paddings == _same(size // 2)
        if centred and _row_blocks(x, size) > 1:
            return _conv_with_blocked_gradient(x, kernel)
        return _conv(x, kernel, 1, paddings)
    # Several devices would add up what each found in every pass of the loop, not once.
    alone = jax.device_count() == 1 and max(map(max, paddings)) < size
    if alone and 2 * kernel.size * x.size / x.shape[-1] >= PRODUCT_FLOPS:
        return _conv_with_product_gradient(x, kernel, paddings)
    return _conv(x, kernel, 1, paddings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_with_product_gradient(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> jax.Array:
    """A convolution of stride 1 whose kernel gradient is added up over runs of rows.

    XLA's CPU code for that gradient takes 5 to 20 times as long as the convolution itself on maps
    of many channels. Shifted copies side by side and one product would need nine times the memory
    of a map, and its traffic; for some rows at a time they stay in the cache: 2 to 5 times as fast
    (`benchmarks/convolutions.py`).
    """
    return _conv(x, kernel, 1, paddings)


def _product_forward(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> tuple:
    return _conv(x, kernel, 1, paddings), (x, kernel)


def _product_backward(paddings: Paddings, residuals: tuple, dy: jax.Array) -> tuple:
    x, kernel = residuals
    window = kernel.shape[:2]
    if dy.shape[-1] > x.shape[-1]:
        to_kernel = _shifted_products(x, dy, window, paddings)
    else:
        # The same sum with the shifts on the side of fewer channels: those of dy run backwards.
        rest = tuple(
            (n - 1 - low, n - 1 - high) for n, (low, high) in zip(window, paddings, strict=True)
        )
        to_kernel = _shifted_products(dy, x, window, rest)[::-1, ::-1].swapaxes(2, 3)
    to_x = jax.linear_transpose(lambda each: _conv(each, kernel, 1, paddings), x)
    return *to_x(dy), to_kernel.astype(kernel.dtype)


_conv_with_product_gradient.defvjp(_product_forward, _product_backward)


def _shifted_products(
    few: jax.Array,
    many: jax.Array,
    window: tuple[int, int],
    paddings: Sequence[tuple[int, int]],
) -> jax.Array:
    """Products of `many: [b, h, w, m]` with every shift of the padded `few: [b, h', w', c]`.

    Returns `[kh, kw, c, m]`: entry i, j is the sum over b, y, x of few[y + i, x + j] * many[y, x],
    added up in float32.
    """
    b, h, w, channels = many.shape
    rows = min(h, max(1, PRODUCT_PIXELS // (b * w)))
    runs = -(-h // rows)
    (top, bottom), beside = paddings
    spare = runs * rows - h
    few = jnp.pad(few, ((0, 0), (top, bottom + spare), beside, (0, 0)))
    many = jnp.pad(many, ((0, 0), (0, spare), (0, 0), (0, 0)))
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]

    def add(n: jax.Array, total: jax.Array) -> jax.Array:
        near = lax.dynamic_slice_in_dim(few, n * rows, rows + window[0] - 1, 1)
        here = lax.dynamic_slice_in_dim(many, n * rows, rows, 1)
        shifts = jnp.concatenate([near[:, i : i + rows, j : j + w] for i, j in places], -1)
        return total + jnp.einsum("bhwm,bhws->ms", here, shifts, preferred_element_type=total.dtype)

    wide = jnp.promote_types(few.dtype, jnp.float32)
    total = jnp.zeros((channels, len(places) * few.shape[-1]), wide)
    total = lax.fori_loop(0, runs, add, total)
    return total.reshape(channels, *window, few.shape[-1]).transpose(1, 2, 3, 0)


def _row_blocks(x: jax.Array, size: int) -> int:
    """Into how many runs of rows `_conv_with_blocked_gradient` should cut each image."""
    blocks = BLOCKED_BATCH // x.shape[0]
    while blocks > 1 and (x.shape[1] % blocks or x.shape[1] // blocks < size):
        blocks -= 1
    return max(blocks, 1)


@jax.custom_vjp
def _conv_with_blocked_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of stride 1, padded to its size, quick for one large map of few channels.

    XLA's CPU code for the kernel gradient works along the batch. One image is no batch, so its
    rows are cut into some, each with its neighbours' edges: 3 to 8 times quicker at 256 x 256 with
    16 channels, and no use above, or with a batch (`benchmarks/convolutions.py`).
    """
    return _conv(x, kernel, 1, _same(kernel.shape[0] // 2))


def _blocked_forward(x: jax.Array, kernel: jax.Array) -> tuple:
    return _conv_with_blocked_gradient(x, kernel), (x, kernel)


def _blocked_backward(residuals: tuple, dy: jax.Array) -> tuple:
    x, kernel = residuals
    size = kernel.shape[0]
    padding = size // 2
    blocks = _row_blocks(x, size)
    rows = x.shape[1] // blocks
    padded = jnp.pad(x, ((0, 0), (padding, padding), (0, 0), (0, 0)))
    parts = [padded[:, n * rows : (n + 1) * rows + 2 * padding] for n in range(blocks)]
    x_blocks = jnp.concatenate(parts, 0)
    dy_blocks = jnp.concatenate(jnp.split(dy, blocks, 1), 0)
    beside = ((0, 0), (padding, padding))
    to_kernel = jax.linear_transpose(lambda k: _conv(x_blocks, k, 1, beside), kernel)
    to_x = jax.linear_transpose(lambda each: _conv(each, kernel, 1, _same(padding)), x)
    return *to_x(dy), *to_kernel(dy_blocks)


_conv_with_blocked_gradient.defvjp(_blocked_forward, _blocked_backward)


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
    `benchmarks/convolutions.py`); elsewhere the native form is used.
    """
    if groups == 1:
        return conv2d(x, jnp.concatenate(kernels, -1), stride=stride, padding=padding)
    if jax.default_backend() != "cpu":
        return jnp.concatenate([_conv(x, k, stride, _same(padding), groups) for k in kernels], -1)
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


# For each parity of the output pixel, how three taps on an enlarged axis fall on two pixels.
_TAPS = np.asarray([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def upsampled_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3 convolution, zero padding, of `x: [b, h, w, c]` enlarged twice by repetition.

    Equal to `conv2d(repeat2d(x, (2, 2)), kernel, padding=1)`, `[b, 2h, 2w, features]`. Of the nine
    pixels under the kernel only four differ, so every parity of rows and columns is a 2 x 2
    convolution of the small map: 4/9 of the products, and the enlarged map is never made.
    """
    b, h, w, _ = x.shape
    taps = _TAPS.astype(kernel.dtype)
    small = jnp.einsum("api,bqj,ijcf->abpqcf", taps, taps, kernel, precision="highest")
    rows = [
        jnp.stack([_stride_one(x, small[i, j], ((1 - i, i), (1 - j, j))) for j in (0, 1)], 3)
        for i in (0, 1)
    ]
    return jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])
