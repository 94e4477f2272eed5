"""Seconds of one training step and of its compilation, for each network; torch beside it.

    python benchmarks/train_step.py [--networks=unetplusplus3,...] [--size=256] [--torch]

Forward, backward, clip and Adam on random data in float32, as the reference was timed. `--torch`
times each UNet++ of segmentation_models_pytorch right after ours (needs torch and that package).
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.config import LossConfig, OptimizerConfig
from vemseg_jax.data.input_pipeline import Batch
from vemseg_jax.models import registry
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.state import create_state
from vemseg_jax.train.supervised import train_step

DEPTH3 = {"encoder_depth": 3, "decoder_channels": (128, 64, 16)}
# Name here: registered name, options, loss, batch, seconds of the reference on 2 CPU cores.
NETWORKS = {
    "small_unet": ("small_unet", {}, "soft_dice", 4, 0.66),
    "unetplusplus3": ("unetplusplus", DEPTH3, "soft_dice", 2, 0.67),
    "unetplusplus5": ("unetplusplus", {}, "dice_coef", 2, 1.70),
    "resunet": ("resunet", {}, "soft_dice", 1, 3.8),
    "fractal_resnet": ("fractal_resnet", {}, "fractal_tanimoto", 1, 0.57),
    "ceecnet_v1": ("ceecnet_v1", {}, "fractal_tanimoto", 1, 1.63),
    "ceecnet_v2": ("ceecnet_v2", {}, "fractal_tanimoto", 1, 3.4),
    "senformer": ("senformer", {}, "senformer", 1, None),
}
REPEATS = 7


def time_network(name: str, size: int, batch: int | None, precision: str) -> None:
    """Prints compilation and step times of one network."""
    registered, options, loss, usual_batch, reference = NETWORKS[name]
    batch = batch or usual_batch
    config = registry.model_config(registered, **options)
    model = registry.create_model(config, dtype=precision)
    optimizer = create_optimizer(OptimizerConfig(schedule="constant"), steps=REPEATS)
    start = time.perf_counter()
    state = jax.block_until_ready(create_state(model, optimizer, seed=0, channels=1))
    initial = time.perf_counter() - start
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(batch, size, size, 1)), jnp.float32)
    y, x = np.mgrid[:size, :size]
    disk = (np.hypot(y - size / 2, x - size / 2) < size / 4).astype(np.float32)
    target = jnp.broadcast_to(disk[None, ..., None], image.shape)
    data = Batch(image=image, target=target, valid=jnp.ones_like(target))
    exclusive = registry.is_exclusive(config)
    objective = make_objective(LossConfig(name=loss), exclusive=exclusive, most_drops=0)

    def step(state, data):
        return train_step(
            state, data, model=model, objective=objective, optimizer=optimizer, seed=0
        )

    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, data).compile()
    compilation = time.perf_counter() - start
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, data)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    beside = f"{seconds / reference:.2f} x the reference" if reference and size == 256 else ""
    print(
        f"{name:15s} batch {batch} {precision}  step {seconds:.3f} s  {beside:22s} "
        f"initial weights {initial:.1f} s  compilation {compilation:.1f} s",
        flush=True,
    )


def time_torch(name: str, size: int) -> None:
    """Prints the step time of the same UNet++ in torch."""
    import segmentation_models_pytorch as smp
    import torch

    _, options, _, batch, _ = NETWORKS[name]
    model = smp.UnetPlusPlus(
        "resnet34", encoder_weights=None, in_channels=1, activation="sigmoid", **options
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    image = torch.randn(batch, 1, size, size)
    target = (image > 0).float()
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        prob = model(image)
        common, total = (prob * target).sum(), (prob**2).sum() + (target**2).sum()
        (1 - (2 * common + 1e-5) / (total + 1e-5)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    print(f"{name:15s} batch {batch} torch    step {seconds:.3f} s", flush=True)


def main() -> None:
    """Parses the arguments and times each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments.size} px")
    for name in arguments.networks.split(","):
        time_network(name, arguments.size, arguments.batch, arguments.precision)
        if arguments.torch and name.startswith("unetplusplus"):
            time_torch(name, arguments.size)


if __name__ == "__main__":
    main()
