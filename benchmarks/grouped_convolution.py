"""Ways to compute a grouped convolution, forward and both gradients, in milliseconds.

    python benchmarks/grouped_convolution.py

`ours` is `grouped_conv2d`; `native` is XLA's own; `split` convolves each group by itself.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vemseg_jax.models.convolution import conv2d, grouped_conv2d

# Side, channels, groups: the levels of CEECNet at 256 x 256, down and up.
SHAPES = [(256, 16, 2), (256, 16, 4), (128, 32, 4), (128, 32, 8), (64, 64, 8), (64, 64, 16)]
SHAPES += [(32, 128, 16)]
REPEATS = 7


def native(x, kernel, groups):
    """XLA's grouped convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def split(x, kernel, groups):
    """One convolution per group."""
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([conv2d(a, k, padding=1) for a, k in parts], -1)


def ours(x, kernel, groups):
    """The project's choice for this platform."""
    return grouped_conv2d(x, [kernel], groups=groups, padding=1)


def milliseconds(function, *arguments) -> float:
    """Median time of a compiled function."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Prints a table."""
    rng = np.random.default_rng(0)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, float32, batch 1, 3 x 3")
    print("side channels groups  how      forward  input gradient  weight gradient")
    for side, channels, groups in SHAPES:
        x = jnp.asarray(rng.normal(size=(1, side, side, channels)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(3, 3, channels // groups, channels)), jnp.float32)
        for convolve in (native, split, ours):

            def forward(x, kernel, convolve=convolve, groups=groups):
                return convolve(x, kernel, groups)

            def input_gradient(x, kernel, dy, forward=forward):
                return jax.vjp(lambda x: forward(x, kernel), x)[1](dy)

            def weight_gradient(x, kernel, dy, forward=forward):
                return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](dy)

            times = (
                milliseconds(jax.jit(forward), x, kernel),
                milliseconds(jax.jit(input_gradient), x, kernel, x),
                milliseconds(jax.jit(weight_gradient), x, kernel, x),
            )
            row = f"{side:4d} {channels:8d} {groups:6d}  {convolve.__name__:7s}"
            print(row + f" {times[0]:8.1f} {times[1]:15.1f} {times[2]:16.1f}", flush=True)


if __name__ == "__main__":
    main()
