"""Dynamic loss scaling, without which small gradients of float16 products become 0."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

FLOAT16 = "float16"
FIRST = 2.0**15
GROWTH_STEPS = 2000
LARGEST = 2.0**24
# Below it gradients that overflow are no matter of scale: the run has diverged.
SMALLEST = 2.0**-4


@flax.struct.dataclass
class LossScale:
    """What the loss is multiplied by before the backward pass, and its history.

    `value` float32; `good` int32, steps since it changed; `skipped` int32, steps whose gradients
    overflowed, so far: they changed neither weights nor statistics.

    Source: Micikevicius et al. 2018, "Mixed precision training"; halved at each overflow, doubled
    after 2000 steps without one.
    """

    value: Any
    good: Any
    skipped: Any

    @classmethod
    def start(cls, precision: str) -> "LossScale | None":
        """The scale of a run's first step; None where the type needs none."""
        if precision != FLOAT16:
            return None
        return cls(
            value=jnp.float32(FIRST),
            good=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
        )

    def after(self, finite: jax.Array) -> "LossScale":
        """The scale of the next step."""
        good = jnp.where(finite, self.good + 1, 0)
        grows = good >= GROWTH_STEPS
        larger = jnp.minimum(jnp.where(grows, 2 * self.value, self.value), LARGEST)
        return LossScale(
            value=jnp.where(finite, larger, self.value / 2),
            good=jnp.where(grows, 0, good),
            skipped=self.skipped + ~finite,
        )


def scaled(loss: jax.Array, scale: LossScale | None) -> jax.Array:
    """The loss whose gradient is taken."""
    return loss if scale is None else loss * scale.value


def unscaled(grads: Any, scale: LossScale | None) -> Any:
    """The gradients of the loss itself."""
    return grads if scale is None else jax.tree.map(lambda g: g / scale.value, grads)


def all_finite(tree: Any) -> jax.Array:
    """Whether every value of a tree is a number."""
    # One pass over each tensor: a sum of squares is finite only where all of them are, or too
    # large to be of use.
    return jnp.isfinite(optax.tree.norm(tree, squared=True))
