"""The state of a training run."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vemseg_jax.models.initial import initial_variables
from vemseg_jax.train.loss_scale import LossScale
from vemseg_jax.train.plateau import Plateau


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes.

    `step` int32 scalar, the number of finished steps; `params` and `batch_stats` float32 trees
    of the network; `opt_state` of the optimizer; `plateau`, what the learning rate's drops depend
    on; `loss_scale` of float16, None for other types.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Plateau
    loss_scale: LossScale | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, channels: int
) -> TrainState:
    """Initialises network and optimizer from a seed; `channels` is the image's."""
    variables = initial_variables(model, seed=seed, channels=channels)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        plateau=Plateau.start(),
    )


def to_host(state: TrainState) -> TrainState:
    """A copy in host memory that later, donating steps cannot overwrite."""
    return jax.tree.map(lambda x: np.array(x, copy=True), state)


def parameter_count(params: Any) -> int:
    """How many numbers the parameter tree holds."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))
