"""The training step of a configuration, as `vemseg-train` runs it, on random slices."""

import copy
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.data.crops.input_pipeline import Planes
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.infer.trained import Description
from vemseg_jax.models import registry
from vemseg_jax.parallel import Placement
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.parts import Step, initial_state, make_pair_step, make_supervised_step
from vemseg_jax.train.state import TrainState, parameter_count

SLICES = 4
# Room around a crop on each slice.
MARGIN = 64


@dataclasses.dataclass
class Prepared:
    """A step, its first state and what else it takes; seconds that initial weights took."""

    config: ExperimentConfig
    step: Step
    state: TrainState
    data: tuple[Any, Any]
    initial_seconds: float

    @property
    def parameters(self) -> int:
        """Of one network."""
        return parameter_count(self.state.params) // (2 if is_pair(self.config) else 1)


def with_size(
    config: ExperimentConfig, *, batch: int | None, crop: int | None, precision: str
) -> ExperimentConfig:
    """The configuration with another batch, crop and type."""
    config = copy.deepcopy(config)
    config.train.batch_size = batch or config.train.batch_size
    config.data.crop_size = crop or config.data.crop_size
    config.train.precision = precision
    return config


def _slices(crop: int, labels: bool) -> Planes:
    """Random grey values, and a disk to find on each slice."""
    side = crop + MARGIN
    rng = np.random.default_rng(int(labels))
    image = rng.integers(0, 256, (SLICES, side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    disk = (np.hypot(y - side / 2, x - side / 2) < crop / 4).astype(np.uint8)
    label = np.broadcast_to(disk[None, ..., None], (*image.shape, 1)).copy() if labels else None
    return Planes(image, label)


def _crops(count: int) -> Crops:
    rng = np.random.default_rng(0)
    return Crops(
        np.arange(count, dtype=np.int32) % SLICES,
        rng.integers(0, MARGIN, (count, 2)).astype(np.int32),
        rng.integers(0, 8, count).astype(np.int32),
    )


def prepare_step(config: ExperimentConfig, placement: Placement) -> Prepared:
    """Step, state and data of a configuration, on the devices of `placement`."""
    pair, size = is_pair(config), config.data.crop_size
    description = Description(
        model=config.model,
        structures=tuple(config.data.structures),
        crop_size=size,
        downsample=4,
        voxel_size=(40.0, 4.0, 4.0),
        normalization=Normalization(mean=0.5, std=0.29, dtype_max=255),
        precision=config.train.precision,
        train_slices=tuple(range(7)),
        val_slices=(),
        volume="random",
        fingerprint="",
        config={},
    )
    model = registry.create_model(config.model, dtype=config.train.precision)
    optimizer = create_optimizer(config.optimizer, steps=config.train.steps)
    start = time.perf_counter()
    state = jax.block_until_ready(initial_state(config, model, optimizer))
    initial = time.perf_counter() - start
    make = make_pair_step if pair else make_supervised_step
    step = make(config, description, model, optimizer, placement)
    count = config.train.batch_size // (2 if pair else 1)
    planes, crops = placement.whole(_slices(size, True)), placement.split(_crops(count))
    data: tuple[Any, Any] = (planes, crops)
    if pair:
        data = ((planes, placement.whole(_slices(size, False))), (crops, crops))
    return Prepared(config, step, placement.whole(state), data, initial)


def matmul_flops(precision: str) -> float:
    """FLOP/s of a large matrix product on this device: what it really gives."""
    side = 1536 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((side, side), precision)
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(a, a))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        times.append(time.perf_counter() - start)
    return 2 * side**3 / sorted(times)[3]
