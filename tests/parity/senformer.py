"""Golden values of the SenFormer loss."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, compare
from vemseg_jax.losses.senformer import senformer_loss

Golden = Mapping[str, np.ndarray]


def _nhwc(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32).transpose(0, 2, 3, 1)


def _sum_of_softmaxes(logits: list[jax.Array]) -> jax.Array:
    return sum(jax.nn.softmax(x) for x in logits)


def check_senformer_loss(golden: Golden) -> Iterator[Result]:
    """Loss and gradients, with ignored pixels, and a case that the clamp decides."""
    names = sorted(key for key in golden if key.startswith("logits_"))
    logits = [_nhwc(golden[name]) for name in names]
    label = jnp.asarray(golden["label"])[:, 0]
    ensemble = np.asarray(_sum_of_softmaxes(logits)).transpose(0, 3, 1, 2)
    yield compare("ensemble", ensemble, golden["ensemble"], tolerances.ENSEMBLE)

    def loss_of(logits):
        return senformer_loss(_sum_of_softmaxes(logits), logits, label)

    loss, grads = jax.value_and_grad(loss_of)(logits)
    yield compare("loss", loss, golden["loss"], tolerances.LOSS)
    for name, grad in zip(names, grads, strict=True):
        expected = golden[f"grad/{name}"]
        found = np.asarray(grad).transpose(0, 3, 1, 2)
        tolerance = tolerances.LOSS_GRADIENT_SHARE * np.abs(expected).max()
        yield compare(f"grad/{name}", found, expected, tolerance)
    if "clamp/logits" in golden:
        yield _check_clamp(golden)


def _check_clamp(golden: Golden) -> Result:
    logits = [_nhwc(golden["clamp/logits"])] * len([k for k in golden if k.startswith("logits_")])
    label = jnp.asarray(golden["clamp/label"])[:, 0]
    loss = senformer_loss(_sum_of_softmaxes(logits), logits, label)
    expected = golden["clamp/loss"]
    tolerance = tolerances.LOSS * max(1.0, abs(float(expected)))  # of the order of -log(1e-15)
    return compare("clamp/loss", loss, expected, tolerance)
