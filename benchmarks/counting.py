"""FLOPs of a jitted function: XLA's count, with the bodies of loops as often as they run."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun


def count_flops(function: Callable, *arguments: Any) -> float:
    """FLOPs of one call of a jitted function, as it is written, before XLA optimises it.

    XLA's cost analysis counts the body of a loop once, however often it runs.
    """
    traced = function.trace(*arguments)  # type: ignore[attr-defined]
    return _by_xla(traced.lower()) + _further_passes(traced.jaxpr.jaxpr)


def _by_xla(lowered: Any) -> float:
    cost = lowered.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get("flops", 0))


def _further_passes(jaxpr: Jaxpr) -> float:
    """FLOPs of all passes but the first of the loops, at any depth."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            body = equation.params["jaxpr"]
            shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in body.in_avals]
            once = _by_xla(jax.jit(jaxpr_as_fun(body)).lower(*shapes))
            passes, inner = equation.params["length"], _further_passes(body.jaxpr)
            total += (passes - 1) * once + passes * inner
        else:
            total += sum(_further_passes(inner) for inner in _programs(equation.params.values()))
    return total


def _programs(values: Any) -> Iterator[Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
