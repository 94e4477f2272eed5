"""Learning rate that drops when the validation loss stops falling."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Plateau:
    """The least loss since the last drop, validations since it, and drops so far; scalars."""

    best: jax.Array
    bad: jax.Array
    drops: jax.Array

    @classmethod
    def start(cls) -> "Plateau":
        """Before the first validation."""
        return cls(jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0))


def observe(
    plateau: Plateau, loss: float, *, patience: int, threshold: float, most_drops: int
) -> Plateau:
    """The state after one validation.

    The rate drops after more than `patience` validations without a loss below (1 - threshold)
    times the least. As in the paper, whose code makes a new `ReduceLROnPlateau` at each drop, the
    least loss is forgotten then and there is no cooldown.

    Args:
      plateau: the state before.
      loss: of the validation; nan counts as no improvement.
      patience: validations to wait.
      threshold: relative improvement that counts.
      most_drops: drops after which the rate stays.
    """
    best, bad, drops = float(plateau.best), int(plateau.bad), int(plateau.drops)
    # An infinite least loss is beaten by any number.
    if loss < best * (1 - threshold) or (best == float("inf") and loss < best):
        best, bad = loss, 0
    else:
        bad += 1
    if bad > patience and drops < most_drops:
        best, bad, drops = float("inf"), 0, drops + 1
    return Plateau(jnp.float32(best), jnp.int32(bad), jnp.int32(drops))
