"""From probabilities to what is stored, on the device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vemseg_jax.data.store.label_writer import PROBABILITY
from vemseg_jax.infer import tiling
from vemseg_jax.infer.outputs import DISAGREEMENT, MASK
from vemseg_jax.models import pair
from vemseg_jax.resize import enlarge

# Probabilities as the network gives them; those that are stored are rounded to 0 to 255.
EXACT_PROBABILITY = "exact_probability"


@functools.partial(
    jax.jit,
    static_argnames=("enlarged", "factor", "prediction", "both", "exclusive", "quantities"),
)
def decide(
    prob: jax.Array,
    *,
    enlarged: Any,
    factor: int,
    prediction: str,
    both: bool,
    exclusive: bool,
    quantities: tuple[str, ...],
) -> dict[str, jax.Array]:
    """From probabilities `[s, h, w, c]` to what is stored, see `BlockPrediction.predict`.

    Args:
      prob: of one network, or with `both` the channels of the first and then of the second.
      enlarged: box of what is stored in the enlarged probabilities; None where they are not
        enlarged.
      factor: by how much they are.
      prediction: of two networks, which one predicts.
      both: whether there are two.
      exclusive: whether classes exclude each other, background first.
      quantities: those wanted: "mask", "probability" and "disagreement", uint8, and
        "exact_probability", float32 in [0, 1].
    """
    if enlarged is not None:
        (y0, y1), (x0, x1) = enlarged
        prob = enlarge(prob, factor, (y1, x1))[:, y0:, x0:]
    results = {"finite": jnp.isfinite(prob).all()}
    apart = None
    if both:
        prob, apart = pair.choose(prob, prediction)
    if MASK in quantities:
        results[MASK] = tiling.structure_masks(prob, exclusive=exclusive)
    # Of classes that exclude each other the first is the background.
    first = 1 if exclusive else 0
    for quantity, value in ((PROBABILITY, prob), (DISAGREEMENT, apart)):
        if quantity in quantities and value is not None:
            results[quantity] = jnp.round(255 * jnp.clip(value[..., first:], 0, 1)).astype(
                jnp.uint8
            )
    if EXACT_PROBABILITY in quantities:
        results[EXACT_PROBABILITY] = jnp.clip(prob[..., first:], 0, 1).astype(jnp.float32)
    return results
