"""Initial variables of a network, without compiling its forward pass."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

# Any size will do: the values of the forward pass are thrown away.
SIDE = 64


def _needed(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """The program without what its results do not depend on."""
    jaxpr = closed.jaxpr
    needed = {id(v) for v in jaxpr.outvars}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if any(id(v) in needed for v in equation.outvars):
            kept.append(equation)
            needed.update(id(v) for v in equation.invars)
    return core.ClosedJaxpr(jaxpr.replace(eqns=kept[::-1]), closed.consts)


def initial_variables(model: nn.Module, *, seed: int, channels: int) -> dict[str, Any]:
    """`{"params", "batch_stats"}` of a network, float32, a pure function of the seed.

    Only the operations that make parameters run, one by one: those of equal shape share their
    compiled code. Compiling them together takes over a minute for the largest network on a CPU.

    Args:
      model: the network.
      seed: of the initial weights.
      channels: the image's.
    """
    image = jnp.zeros((1, SIDE, SIDE, channels), jnp.float32)
    # XLA's own generator compiles several times faster than the default one on a CPU.
    key = jax.random.key(seed, impl="rbg")
    traced = jax.jit(lambda key: model.init(key, image, train=False)).trace(key)
    leaves = core.jaxpr_as_fun(_needed(traced.jaxpr))(key)
    variables = jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
