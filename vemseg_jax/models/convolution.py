"""Convolutions written so that they are quick on every platform. NHWC, kernels HWIO."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Channels that one dense convolution should have on a CPU, see `grouped_conv2d`.
DENSE_CHANNELS = 32

# Up to how many channels `_by_blocks` is for, and into how large a batch it cuts an image.
BLOCKED_CHANNELS = 16
BLOCKED_BATCH = 8
# FLOPs from which a kernel gradient is quicker by `_by_products`, and how many pixels that takes at
# a time, so that what it gathers stays in the cache.
PRODUCT_FLOPS = 5e8
PRODUCT_PIXELS = 2048
# Up to which width and features, and up to how many bytes, YNNPACK takes one thread; FLOPs from
# which that matters.
ONE_TILE = 64
TILE_BYTES = 2**18
THREADED_FLOPS = 1e8

# Where a form is chosen by the platform.
platform = jax.default_backend


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
    """A convolution of stride 1, in the form that is quick on this platform."""
    size = len(kernel)
    if platform() != "cpu" or size == 1 or max(map(max, paddings)) >= size:
        return _conv(x, kernel, 1, paddings)
    y = _output_shape(x, kernel, paddings)
    flipped = *kernel.shape[:2], *kernel.shape[:1:-1]
    idle = _leaves_a_core_idle(x.shape, kernel.shape, y, x.dtype)
    idle |= _leaves_a_core_idle(y, flipped, x.shape, x.dtype)
    if not idle and _kernel_gradient(x, kernel, paddings) is _by_xla:
        return _conv(x, kernel, 1, paddings)
    return _conv_on_cpu(x, kernel, paddings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_on_cpu(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> jax.Array:
    """A convolution of stride 1 that keeps all cores busy, as do its gradients."""
    return _on_all_cores(x, kernel, paddings)


def _forward(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> tuple:
    return _on_all_cores(x, kernel, paddings), (x, kernel)


def _backward(paddings: Paddings, residuals: tuple, dy: jax.Array) -> tuple:
    x, kernel = residuals
    to_kernel = _kernel_gradient(x, kernel, paddings)(x, kernel, paddings, dy)
    to_x = _on_all_cores(dy, _flipped(kernel), _rest(kernel, paddings))
    return to_x, to_kernel.astype(kernel.dtype)


_conv_on_cpu.defvjp(_forward, _backward)


def _output_shape(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> tuple[int, ...]:
    height, width = (
        n + sum(padding) - taps + 1
        for n, padding, taps in zip(x.shape[1:3], paddings, kernel.shape[:2], strict=True)
    )
    return x.shape[0], height, width, kernel.shape[-1]


def _flipped(kernel: jax.Array) -> jax.Array:
    """The kernel that takes the gradient of the output to that of the input."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _rest(kernel: jax.Array, paddings: Paddings) -> Paddings:
    """The padding that goes with `_flipped`."""
    (top, bottom), (left, right) = paddings
    rows, columns = (n - 1 for n in kernel.shape[:2])
    return (rows - top, rows - bottom), (columns - left, columns - right)


def _leaves_a_core_idle(
    x: tuple[int, ...], kernel: tuple[int, ...], y: tuple[int, ...], dtype: jnp.dtype
) -> bool:
    """Whether XLA's usual code for a CPU takes one core for a convolution of these shapes.

    XLA leaves float32 convolutions to YNNPACK. As far as can be seen from outside, that cuts a
    wide map by its width, a narrow one by its features, and gives the parts to several threads if
    what they take of map and kernel exceeds `TILE_BYTES` (68 of 70 random shapes were told right).
    """
    rows, columns, channels, features = kernel
    _, height, width, _ = y
    if dtype != jnp.float32 or max(channels, features) <= 16:
        return False  # not YNNPACK's
    if height != x[1] or 2 * math.prod(kernel) * math.prod(y[:3]) < THREADED_FLOPS:
        return False
    if max(width, features) <= ONE_TILE:
        return True
    tile = _half(width) + features if width > ONE_TILE else width + _half(features)
    return 4 * rows * columns * channels * tile < TILE_BYTES


def _half(length: int) -> int:
    """Half of the next power of two."""
    return 1 << (length - 1).bit_length() - 1


def _on_all_cores(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> jax.Array:
    """A convolution of stride 1 by the code of XLA that uses all cores.

    YNNPACK takes no convolution whose result is larger than its input. Eigen does, and shares any
    among threads: with one more row, which is left out again by the loop that reads the result, it
    is 1.1 to 1.9 times as fast where YNNPACK would take one core.
    """
    y = _output_shape(x, kernel, paddings)
    if not _leaves_a_core_idle(x.shape, kernel.shape, y, x.dtype):
        return _conv(x, kernel, 1, paddings)
    (top, bottom), beside = paddings
    return _conv(x, kernel, 1, ((top, bottom + 1), beside))[:, : y[1]]


def _kernel_gradient(x: jax.Array, kernel: jax.Array, paddings: Paddings) -> Callable:
    """The quickest way to the kernel gradient, a function of x, kernel, paddings and dy."""
    if max(kernel.shape[2:]) <= BLOCKED_CHANNELS:
        centred = len(kernel) % 2 == 1 and paddings == _same(len(kernel) // 2)
        return _by_blocks if centred and _row_blocks(x, len(kernel)) > 1 else _by_xla
    # Several devices would add up what each found in every pass of the loop, not once.
    alone = jax.device_count() == 1
    if alone and 2 * kernel.size * x.size / x.shape[-1] >= PRODUCT_FLOPS:
        return _by_products
    return _by_xla


def _by_xla(x: jax.Array, kernel: jax.Array, paddings: Paddings, dy: jax.Array) -> jax.Array:
    return jax.linear_transpose(lambda k: _conv(x, k, 1, paddings), kernel)(dy)[0]


def _by_products(x: jax.Array, kernel: jax.Array, paddings: Paddings, dy: jax.Array) -> jax.Array:
    """Added up over runs of rows, each a matrix product.

    XLA's CPU code for that gradient takes up to 20 times as long as the convolution itself on maps
    of many channels. Shifted copies side by side and one product would need nine times the memory
    of a map, and its traffic; for some rows at a time they stay in the cache: 2 to 5 times as fast
    on an Intel Xeon, 1.1 to 1.8 times on an AMD EPYC (`benchmarks/convolutions.py`).
    """
    window = kernel.shape[0], kernel.shape[1]
    if dy.shape[-1] > x.shape[-1]:
        return _shifted_products(x, dy, window, paddings)
    # The same sum with the shifts on the side of fewer channels: those of dy run backwards.
    return _flipped(_shifted_products(dy, x, window, _rest(kernel, paddings)))


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
    """Into how many runs of rows `_by_blocks` should cut each image."""
    blocks = BLOCKED_BATCH // x.shape[0]
    while blocks > 1 and (x.shape[1] % blocks or x.shape[1] // blocks < size):
        blocks -= 1
    return max(blocks, 1)


def _by_blocks(x: jax.Array, kernel: jax.Array, paddings: Paddings, dy: jax.Array) -> jax.Array:
    """By XLA, with the rows of each image cut into a batch; for one large map of few channels.

    XLA's CPU code for the kernel gradient works along the batch. One image is no batch, so its
    rows are cut into some, each with its neighbours' edges: 3 to 8 times quicker at 256 x 256 with
    16 channels, and no use above, or with a batch (`benchmarks/convolutions.py`).
    """
    (padding, _), beside = paddings
    blocks = _row_blocks(x, len(kernel))
    rows = x.shape[1] // blocks
    padded = jnp.pad(x, ((0, 0), (padding, padding), (0, 0), (0, 0)))
    parts = [padded[:, n * rows : (n + 1) * rows + 2 * padding] for n in range(blocks)]
    x_blocks = jnp.concatenate(parts, 0)
    dy_blocks = jnp.concatenate(jnp.split(dy, blocks, 1), 0)
    return _by_xla(x_blocks, kernel, ((0, 0), beside), dy_blocks)


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
    if platform() != "cpu":
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
