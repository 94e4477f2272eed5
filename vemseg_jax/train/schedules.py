"""Learning-rate and loss-weight schedules: pure functions of the step or epoch."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from vemseg_jax.config import CPSConfig

REFERENCE_WARMUP_STEPS = 1500

Schedule = Callable[[jnp.ndarray], jnp.ndarray]


def reference_rate(iteration: np.ndarray, *, base: float, max_iterations: int) -> np.ndarray:
    """The rate the reference computes at `iteration`, in float64.

    base * i / 1500 during the first 1500 iterations, then base * (1 - i / max_iterations): it
    jumps down where the two meet.
    """
    iteration = np.asarray(iteration, np.float64)
    decay = base * np.maximum(1 - iteration / max_iterations, 0)
    return np.where(
        iteration < REFERENCE_WARMUP_STEPS, base * iteration / REFERENCE_WARMUP_STEPS, decay
    )


def reference_schedule(*, base: float, max_iterations: int) -> Schedule:
    """The rate the reference's optimizer really uses at each step.

    It writes the new rate after the step: step 0 runs at `base`, step k at the rate of
    iteration k - 1. For exact comparison with the reference; `warmup_poly_schedule` is the
    default.
    """

    def schedule(step: jnp.ndarray) -> jnp.ndarray:
        iteration = jnp.maximum(step - 1, 0).astype(jnp.float32)
        warm = base * iteration / REFERENCE_WARMUP_STEPS
        decay = base * jnp.maximum(1 - iteration / max_iterations, 0)
        rate = jnp.where(iteration < REFERENCE_WARMUP_STEPS, warm, decay)
        return jnp.where(step == 0, base, rate)

    return schedule


def warmup_poly_schedule(
    *, base: float, max_steps: int, warmup_steps: int, power: float = 1.0
) -> Schedule:
    """Linear warm-up to `base`, then polynomial decay that reaches 0 after the last step.

    Step k of the warm-up runs at base * (k + 1) / warmup_steps, so that no step is lost at rate
    0; after it the rate is base * (1 - (k - warmup_steps) / (max_steps - warmup_steps)) ** power.
    """

    def schedule(step: jnp.ndarray) -> jnp.ndarray:
        step = jnp.asarray(step, jnp.float32)
        warm = base * (step + 1) / max(warmup_steps, 1)
        left = 1 - (step - warmup_steps) / max(max_steps - warmup_steps, 1)
        return jnp.where(step < warmup_steps, warm, base * jnp.clip(left, 0, 1) ** power)

    return schedule


RAMP_FLOOR = 1e-5


def consistency_ramp(
    epoch: Any,
    *,
    weight: float = 1.0,
    first: float = RAMP_FLOOR,
    start: float = 5,
    end: float = 20,
    xp: Any = np,
) -> Any:
    """Weight of the Cross Pseudo Supervision loss at each epoch.

    1e-5 up to epoch `start`, then linear from `first` there to `weight` at epoch `end`, constant
    after it. `first` is 1e-5 in the paper, 0.01 in its Dice variant for SenFormer.

    Args:
      epoch: number or array.
      weight, first, start, end: see above.
      xp: numpy for float64, jax.numpy inside a jitted step.
    """
    progress = xp.clip((xp.asarray(epoch) - start) / (end - start), 0, 1)
    ramp = first + (weight - first) * progress
    return xp.where(xp.asarray(epoch) <= start, RAMP_FLOOR, ramp)


def consistency_schedule(config: CPSConfig, *, steps_per_epoch: int) -> Schedule:
    """The weight at each step of a run, see `CPSConfig`."""

    def schedule(step: jnp.ndarray) -> jnp.ndarray:
        step = jnp.asarray(step)
        epoch = step // steps_per_epoch if config.ramp == "epoch" else step / steps_per_epoch
        return consistency_ramp(
            epoch,
            weight=config.weight,
            first=config.ramp_first,
            start=config.ramp_start,
            end=config.ramp_end,
            xp=jnp,
        )

    return schedule
