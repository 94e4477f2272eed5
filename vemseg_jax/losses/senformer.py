"""The loss of SenFormer: cross-entropy of the ensemble and of every learner."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vemseg_jax.resize import resize_bilinear

IGNORED = 255
CLAMP = 1e-15


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Mean cross-entropy over the pixels that are not ignored.

    Args:
      logits: `[b, h, w, classes]`.
      label: `[b, h, w]` integers: the class, or 255 where a pixel does not count.

    Returns:
      A scalar; 0 when every pixel is ignored (torch gives nan).
    """
    kept = label != IGNORED
    log_prob = jax.nn.log_softmax(logits)
    chosen = jnp.where(kept, label, 0).astype(jnp.int32)[..., None]
    # A comparison, not a gather: its gradient is no scatter.
    hit = chosen == jnp.arange(logits.shape[-1])
    picked = jnp.sum(jnp.where(hit, log_prob, 0), -1)
    return -jnp.sum(jnp.where(kept, picked, 0)) / jnp.maximum(kept.sum(), 1)


def senformer_loss(
    ensemble: jax.Array, learners: Sequence[jax.Array], label: jax.Array
) -> jax.Array:
    """Cross-entropy of log(max(ensemble, 1e-15)) plus the mean of the learners' cross-entropies.

    All maps are first resized bilinearly to the label's size. Source: Bousselham et al. 2021, as
    used by Pagano et al. 2023 (whose ensemble is a sum of softmaxes: the softmax inside the
    cross-entropy normalises it).

    Args:
      ensemble: `[b, h, w, classes]`, sum or mean of the learners' softmaxes.
      learners: logits `[b, h, w, classes]` of each.
      label: `[b, H, W]` integers: the class, or 255 where a pixel does not count.

    Returns:
      The loss, a scalar.
    """
    shape = label.shape[1:3]
    whole = resize_bilinear(jnp.log(jnp.maximum(ensemble, CLAMP)), shape)
    parts = [cross_entropy(resize_bilinear(logits, shape), label) for logits in learners]
    return cross_entropy(whole, label) + sum(parts) / len(parts)
