"""The optimizer of a configuration."""

from typing import Any

import jax
import optax

from vemseg_jax.config import OptimizerConfig
from vemseg_jax.train import schedules
from vemseg_jax.train.packed import packed


def learning_rate(config: OptimizerConfig, *, steps: int) -> schedules.Schedule:
    """The learning-rate schedule over `steps` steps."""
    if config.schedule in ("constant", "plateau"):
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "reference":
        return schedules.reference_schedule(base=config.learning_rate, max_iterations=steps)
    return schedules.warmup_poly_schedule(
        base=config.learning_rate,
        max_steps=steps,
        warmup_steps=min(config.warmup_steps, steps),
        power=config.power,
    )


# Parameters of two or more dimensions that AdamW does not decay all the same.
UNDECAYED = ("relative_position_bias_table", "queries")
# What one drop on a plateau multiplies the learning rate by.
DROP = 0.1


def decayed(params: Any) -> Any:
    """Which parameters weight decay applies to: not norms, biases, gates, tables and queries."""

    def is_decayed(path: tuple, value: jax.Array) -> bool:
        return value.ndim > 1 and path[-1].key not in UNDECAYED

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def create_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
    """Adam or AdamW (betas 0.9 and 0.999, epsilon 1e-8) on gradients clipped to a global norm.

    Drops on a plateau are not part of it: the step scales the updates (`train.update`).

    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019; the settings of Pagano et al. 2023.
    """
    moments = optax.scale_by_adam()
    if config.clip_norm:
        moments = optax.chain(optax.clip_by_global_norm(config.clip_norm), moments)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    return optax.chain(
        packed(moments),
        *([decay] if config.name == "adamw" else []),
        optax.scale_by_learning_rate(learning_rate(config, steps=steps)),
    )
