"""Two networks of one kind as one tree, whose leaves stack both on a leading axis."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any


def network(pair: Tree, number: int) -> Tree:
    """The network `number`, 0 or 1, of a pair."""
    return jax.tree.map(lambda x: x[number], pair)


def join(first: Tree, second: Tree) -> Tree:
    """The pair of two networks."""
    return jax.tree.map(lambda a, b: jnp.stack([a, b]), first, second)


def make_apply(model: nn.Module, prediction: str) -> Callable[..., dict[str, jax.Array]]:
    """A pair's `apply` for inference: `(variables, image, train=False) -> {"prob"}`.

    Args:
      model: the network.
      prediction: "first", "second" or "mean".
    """
    numbers = {"first": (0,), "second": (1,), "mean": (0, 1)}[prediction]

    def apply(variables: Tree, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        outputs: list[Any] = [
            model.apply(network(variables, number), image, train=train) for number in numbers
        ]
        return {"prob": jnp.mean(jnp.stack([each["prob"] for each in outputs]), 0)}

    return apply
