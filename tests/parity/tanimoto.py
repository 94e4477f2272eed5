"""Golden fractal Tanimoto losses and attention similarities."""

import re
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, compare
from vemseg_jax.losses.tanimoto import fractal_tanimoto_loss
from vemseg_jax.tanimoto import fractal_tanimoto

Golden = Mapping[str, np.ndarray]


def _nhwc(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32).transpose(0, 2, 3, 1)


def check_tanimoto_losses(golden: Golden) -> Iterator[Result]:
    """Losses and gradients at every depth of the file, degenerate masks included."""
    for key in list(golden):
        match = re.fullmatch(r"(.+)/ftnmt_depth(\d+)", key)
        if not match or key.startswith("f64/"):
            continue
        case, depth = match[1], int(match[2])
        arguments = (_nhwc(golden[f"{case}/pred"]), _nhwc(golden[f"{case}/target"]))

        def loss_of(p, t, depth=depth):
            return fractal_tanimoto_loss(p, t, depth=depth)

        loss, grad = jax.value_and_grad(loss_of)(*arguments)
        yield compare(key, loss, golden["f64/" + key], tolerances.LOSS)
        if f"{key}_grad" in golden:
            expected = golden[f"{key}_grad"]
            found = np.asarray(grad).transpose(0, 3, 1, 2)
            tolerance = tolerances.LOSS_GRADIENT_SHARE * np.abs(expected).max()
            yield compare(f"{key}_grad", found, expected, tolerance)
        if f"{key}_float32" in golden:
            # What torch's float32 gives: a record of its rounding, not a target.
            golden[f"{key}_float32"]
    yield from _check_multitask(golden)
    yield from _check_similarity(golden)


def _check_multitask(golden: Golden) -> Iterator[Result]:
    for key in [k for k in golden if re.fullmatch(r"mtsk_depth\d+", k)]:
        depth = int(key.removeprefix("mtsk_depth"))
        losses = [
            fractal_tanimoto_loss(
                _nhwc(golden[f"{case}/pred"]), _nhwc(golden[f"{case}/target"]), depth=depth
            )
            for case in ("segm", "bound", "dist")
        ]
        yield compare(key, losses, golden[key], tolerances.LOSS)
        if f"{key}_mean" in golden:
            mean = golden[f"{key}_mean"]
            yield compare(f"{key}_mean", np.mean(losses), mean, tolerances.LOSS)


def _check_similarity(golden: Golden) -> Iterator[Result]:
    for key in list(golden):
        match = re.fullmatch(r"ftanimoto/depth(\d+)_(channel|space)", key)
        if match:
            q, k = _nhwc(golden["ftanimoto/q"]), _nhwc(golden["ftanimoto/k"])
            axes = (1, 2) if match[2] == "channel" else (3,)
            found = fractal_tanimoto(q, k, axes=axes, depth=int(match[1]))
            yield compare(
                key, np.asarray(found).transpose(0, 3, 1, 2), golden[key], tolerances.SIMILARITY
            )
