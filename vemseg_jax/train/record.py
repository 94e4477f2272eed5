"""What the steps between two lines of the log come to."""

from collections.abc import Sequence

import numpy as np

from vemseg_jax.train.loss_scale import SMALLEST

Step = dict[str, np.ndarray]
# Metrics of which the last value says more than the mean.
_LAST = ("loss_scale", "skipped_steps")


def split_steps(values: dict[str, np.ndarray]) -> list[Step]:
    """The metrics of one step, or of those of one dispatch, as a list of steps."""
    stacked = {name: np.atleast_1d(value) for name, value in values.items()}
    return [{n: v[index] for n, v in stacked.items()} for index in range(len(stacked["loss"]))]


def is_diverged(step: Step) -> bool:
    """Whether loss or gradients are no numbers, and not because of the scale of the loss."""
    if step.get("skipped"):
        return bool(step["loss_scale"] < SMALLEST)
    return not all(np.isfinite(value) for value in step.values())


def summary(steps: Sequence[Step]) -> dict[str, float]:
    """Means over the steps that were not skipped (`train.loss_scale`); no more than JSON has."""
    taken = [step for step in steps if not step.get("skipped")]
    names = [name for name in steps[-1] if name != "skipped"]
    last = {name: float(steps[-1][name]) for name in names if name in _LAST}
    means = {n: float(np.mean([each[n] for each in taken])) for n in names if taken}
    return means | last
