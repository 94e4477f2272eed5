"""Ways to compute the convolutions that XLA is slow at, in milliseconds.

    python benchmarks/convolutions.py [--precision=bfloat16] [--output=r.json]

Grouped convolutions, convolutions of one large map of few channels, of maps of many, and of a map
that was enlarged twice by repetition: forward and both gradients, 3 x 3. `ours` is what
the networks use on this platform, `native` XLA's own, `split` convolves each group by itself. A
ReLU follows maps, as in a network something always does.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax
from recording import record

from vemseg_jax.config import PRECISIONS
from vemseg_jax.models.convolution import conv2d, grouped_conv2d, upsampled_conv2d
from vemseg_jax.resize import repeat2d

Convolution = Callable[[jax.Array, jax.Array], jax.Array]

# Side, channels, groups: the levels of CEECNet at 256 x 256, down and up.
GROUPED = [(256, 16, 2), (256, 16, 4), (128, 32, 4), (128, 32, 8), (64, 64, 8), (64, 64, 16)]
GROUPED += [(32, 128, 16)]
# Batch, side, channels, features: what the gradient by blocks of rows is for, and what it is not.
FEW_CHANNELS = [(1, 256, 16, 16), (1, 256, 16, 48), (1, 256, 32, 16), (1, 512, 8, 8)]
FEW_CHANNELS += [(2, 256, 16, 16), (1, 128, 16, 16), (4, 256, 16, 16), (1, 128, 32, 32)]
# What gradients as matrix products are for, the levels of a U-Net of 64 channels, and what XLA's
# usual code leaves to one core.
MANY_CHANNELS = [(2, 256, 64, 64), (2, 128, 128, 128), (2, 64, 256, 256), (2, 32, 512, 512)]
MANY_CHANNELS += [(2, 256, 32, 32), (2, 128, 32, 128), (8, 32, 64, 64)]
MANY_CHANNELS += [(2, 64, 64, 64), (2, 128, 32, 64), (2, 64, 256, 64)]
# Batch, side before enlarging, channels, features: decoders of UNet++ at 256 x 256.
ENLARGED = [(2, 32, 128, 128), (2, 64, 64, 64), (2, 64, 128, 64), (2, 128, 64, 16)]
REPEATS = 7
_PRECISION = flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "Type of all.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file.")


def native(x: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def split(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """One convolution per group."""
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([conv2d(a, k, padding=1) for a, k in parts], -1)


def milliseconds(function: Callable, *arguments: jax.Array) -> float:
    """Median time of a compiled function."""
    jax.block_until_ready(function(*arguments))
    # Several in a row: a dispatch takes longer than the smallest of them on a GPU.
    calls = 1 if jax.default_backend() == "cpu" else 20
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        results = [function(*arguments) for _ in range(calls)]
        jax.block_until_ready(results)
        times.append((time.perf_counter() - start) / calls)
    return 1e3 * statistics.median(times)


def time_row(label: str, convolve: Convolution, x: jax.Array, kernel: jax.Array) -> dict:
    """Times a convolution and its gradients; prints and returns milliseconds."""
    dy = jnp.ones(jax.eval_shape(convolve, x, kernel).shape, x.dtype)

    def forward(x, kernel):
        return jax.nn.relu(convolve(x, kernel))

    def input_gradient(x, kernel, dy):
        return jax.nn.relu(jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)[0])

    def kernel_gradient(x, kernel, dy):
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)

    to_output = milliseconds(jax.jit(forward), x, kernel)
    to_input = milliseconds(jax.jit(input_gradient), x, kernel, dy)
    to_kernel = milliseconds(jax.jit(kernel_gradient), x, kernel, dy)
    print(f"{label:44s} {to_output:8.2f} {to_input:15.2f} {to_kernel:16.2f}", flush=True)
    keys = ("forward", "input_gradient", "kernel_gradient")
    return {"what": label, **dict(zip(keys, (to_output, to_input, to_kernel), strict=True))}


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    rows: list[dict] = []
    rng = np.random.default_rng(0)

    def random(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), _PRECISION.value)

    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {_PRECISION.value}")
    print(f"{'':44s} {'forward':>8s} {'input gradient':>15s} {'kernel gradient':>16s}")
    for side, channels, groups in GROUPED:
        x, kernel = random(1, side, side, channels), random(3, 3, channels // groups, channels)
        ways: dict[str, Convolution] = {
            "native": lambda x, k, g=groups: native(x, k, g),
            "split": lambda x, k, g=groups: split(x, k, g),
            "ours": lambda x, k, g=groups: grouped_conv2d(x, [k], groups=g, padding=1),
        }
        for way, convolve in ways.items():
            rows.append(
                time_row(f"1 x {side}^2, {channels} in {groups} groups  {way}", convolve, x, kernel)
            )
    for batch, side, channels, features in FEW_CHANNELS + MANY_CHANNELS:
        x, kernel = random(batch, side, side, channels), random(3, 3, channels, features)
        label = f"{batch} x {side}^2, {channels} -> {features}"
        rows.append(time_row(f"{label}  native", native, x, kernel))
        rows.append(time_row(f"{label}  ours", lambda x, k: conv2d(x, k, padding=1), x, kernel))
    for batch, side, channels, features in ENLARGED:
        x, kernel = random(batch, side, side, channels), random(3, 3, channels, features)
        label = f"{batch} x {side}^2 enlarged, {channels} -> {features}"
        rows.append(
            time_row(f"{label}  native", lambda x, k: native(repeat2d(x, (2, 2)), k), x, kernel)
        )
        rows.append(time_row(f"{label}  ours", upsampled_conv2d, x, kernel))
    record(_OUTPUT.value, "convolutions", rows, unit="ms", precision=_PRECISION.value)


if __name__ == "__main__":
    app.run(main)
