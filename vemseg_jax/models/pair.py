"""Two networks of one kind as one tree, whose leaves stack both on a leading axis."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Tree = Any
FIRST, SECOND, MEAN, BOTH = "first", "second", "mean", "both"


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
      prediction: "first", "second", "mean", or "both": the channels of the first, then those of
        the second.
    """
    numbers = {FIRST: (0,), SECOND: (1,), MEAN: (0, 1), BOTH: (0, 1)}[prediction]

    def apply(variables: Tree, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        outputs: list[Any] = [
            model.apply(network(variables, number), image, train=train) for number in numbers
        ]
        probs = [each["prob"] for each in outputs]
        if prediction == BOTH:
            return {"prob": jnp.concatenate(probs, -1)}
        return {"prob": jnp.mean(jnp.stack(probs), 0)}

    return apply


def choose(both: jax.Array, prediction: str) -> tuple[jax.Array, jax.Array]:
    """What "first", "second" or "mean" predicts, and how far the networks disagree.

    Args:
      both: `[..., 2c]`, channels of the first and of the second network.
      prediction: which of them.

    Returns:
      Two arrays `[..., c]`: probability, and the absolute difference of the two.
    """
    first, second = jnp.split(both, 2, -1)
    prob = {FIRST: first, SECOND: second, MEAN: (first + second) / 2}[prediction]
    return prob, jnp.abs(first - second)
