"""FLOPs of a function: those of its convolutions and matrix products, on every platform."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from vemseg_jax.models import convolution


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Convolutions as a network has them: not in the forms that a CPU computes them by.

    There a grouped convolution is a dense one with zeros between its groups, for instance.
    """
    used, convolution.platform = convolution.platform, lambda: "any other"
    try:
        yield
    finally:
        convolution.platform = used


def count_flops(function: Callable, *arguments: Any) -> float:
    """FLOPs of one call: two for each product of a convolution or matrix product.

    Products with padding do not count, the body of a loop counts as often as it runs. XLA's own
    count has each element of every other operation too, loops once, and is not to be had of
    compilers behind a plugin, such as that for CUDA.

    Args:
      function: jitted or not.
      *arguments: arrays, or anything with their shape and dtype.
    """
    plain = getattr(function, "__wrapped__", function)
    # A function of its own: what was traced before, perhaps in another form, is not used again.
    return _count(jax.make_jaxpr(lambda *given: plain(*given))(*arguments).jaxpr)


def _needed(jaxpr: Jaxpr) -> Iterator[Any]:
    """The equations whose results are used, last first."""
    live = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in live for variable in equation.outvars):
            live.update(id(variable) for variable in equation.invars)
            yield equation


def _count(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in _needed(jaxpr):
        name = equation.primitive.name
        if name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "dot_general":
            total += _product(equation)
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in equation.params["branches"])
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(_count(inner) for inner in _programs(equation.params.values()))
    return total


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)


def _convolution(equation: Any) -> float:
    given = equation.params
    numbers = given["dimension_numbers"]
    x, kernel = (v.aval.shape for v in equation.invars)
    y = equation.outvars[0].aval.shape
    products = y[numbers.out_spec[0]] * y[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    for axis, (low, _) in enumerate(given["padding"]):
        size, taps, outputs = (
            shape[spec[2 + axis]]
            for shape, spec in (
                (x, numbers.lhs_spec), (kernel, numbers.rhs_spec), (y, numbers.out_spec)
            )
        )  # fmt: skip
        dilation = given["lhs_dilation"][axis]
        place = (
            np.arange(outputs)[:, None] * given["window_strides"][axis]
            + np.arange(taps) * given["rhs_dilation"][axis]
            - low
        )
        inside = (place >= 0) & (place <= (size - 1) * dilation) & (place % dilation == 0)
        products *= int(inside.sum())
    return 2.0 * products


def _programs(values: Any) -> Iterator[Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
