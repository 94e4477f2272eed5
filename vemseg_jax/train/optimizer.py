"""The optimizer of a configuration."""

import optax

from vemseg_jax.config import OptimizerConfig
from vemseg_jax.train import schedules


def learning_rate(config: OptimizerConfig, *, steps: int) -> schedules.Schedule:
    """The learning-rate schedule over `steps` steps."""
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "reference":
        return schedules.reference_schedule(base=config.learning_rate, max_iterations=steps)
    return schedules.warmup_poly_schedule(
        base=config.learning_rate,
        max_steps=steps,
        warmup_steps=min(config.warmup_steps, steps),
        power=config.power,
    )


def create_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
    """Adam (betas 0.9 and 0.999, epsilon 1e-8) on gradients clipped to a global norm.

    Source: Kingma and Ba 2015; the settings of Pagano et al. 2023.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adam(learning_rate(config, steps=steps)),
    )
