"""Cost of Cross Pseudo Supervision with CutMix: seconds of a step, of compiling it, and memory.

    python benchmarks/cps_step.py [--forms=supervised,reference,...] [--size=256] [--torch]

UNet++ (ResNet-34, depth 3) in float32 on random data: 4 labelled crops and 4 unlabelled ones make 4
mixed ones. `supervised` is one network on 4 labelled crops; `reference`, `merged`: batch statistics
of `--config.cps.statistics`; `vmapped`: both networks in one vmapped pass; `cps`: without CutMix.
By the arithmetic, a backward pass counted as two forward ones, CutMix costs (8 + 4 * 2) / 3 = 5.3
supervised steps. `--torch` times the same step with segmentation_models_pytorch right after ours.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.config import LossConfig, OptimizerConfig
from vemseg_jax.data.cutmix import draw_masks
from vemseg_jax.data.input_pipeline import Batch
from vemseg_jax.models import registry
from vemseg_jax.train.cps import CPSRule, cps_step
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.semi_supervised import create_pair_state
from vemseg_jax.train.state import create_state
from vemseg_jax.train.supervised import train_step

OPTIONS = {"encoder_depth": 3, "decoder_channels": (128, 64, 16)}
FORMS: dict[str, dict[str, bool]] = {
    "supervised": {},
    "reference": {"cutmix": True},
    "merged": {"cutmix": True, "merged": True},
    "cps": {"cutmix": False},
    "vmapped": {"cutmix": True, "vmapped": True},
}
CROPS = 4
REPEATS = 7
SLOW_REPEATS = 2  # of the vmapped form on a CPU


def batch_of(size: int, seed: int) -> Batch:
    """Random grey values and a disk to find."""
    image = np.random.default_rng(seed).normal(size=(CROPS, size, size, 1))
    y, x = np.mgrid[:size, :size]
    disk = (np.hypot(y - size / 2, x - size / 2) < size / 4).astype(np.float32)
    target = jnp.broadcast_to(disk[None, ..., None], image.shape)
    ones = jnp.ones_like(target)
    return Batch(image=jnp.asarray(image, jnp.float32), target=target, valid=ones, seen=ones)


def make(form: str, size: int, precision: str) -> tuple[Callable, Any, tuple]:
    """The step of one form, its first state and what else it takes."""
    config = registry.model_config("unetplusplus", **OPTIONS)
    model = registry.create_model(config, dtype=precision)
    optimizer = create_optimizer(OptimizerConfig(schedule="constant"), steps=REPEATS)
    objective = make_objective(LossConfig(), exclusive=False, most_drops=0)
    labelled, unlabelled = batch_of(size, 0), batch_of(size, 1)
    if form == "supervised":

        def supervised(state: Any, data: Batch) -> tuple:
            return train_step(
                state, data, model=model, objective=objective, optimizer=optimizer, seed=0
            )

        return supervised, create_state(model, optimizer, seed=0, channels=1), (labelled,)
    rule = CPSRule(supervised=objective, cross=objective, **FORMS[form])

    def step(state: Any, labelled: Batch, unlabelled: Batch) -> tuple:
        mask = None
        if rule.cutmix:
            key = jax.random.fold_in(jax.random.key(0), state.step)
            mask = draw_masks(key, CROPS, (size, size))
        return cps_step(
            state,
            labelled,
            unlabelled,
            model=model,
            rule=rule,
            optimizer=optimizer,
            weight=jnp.float32(1),
            mask=mask,
            seed=0,
        )

    state = create_pair_state(model, optimizer, seed=0, channels=1)
    return step, state, (labelled, unlabelled)


def time_form(form: str, size: int, precision: str) -> float:
    """Prints and returns the median seconds of a step."""
    step, state, data = make(form, size, precision)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, *data).compile()
    compilation = time.perf_counter() - start
    memory = compiled.memory_analysis()
    planned = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30
    times = []
    slow = form == "vmapped" and jax.default_backend() == "cpu"
    for _ in range((SLOW_REPEATS if slow else REPEATS) + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, *data)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    print(
        f"{form:12s} {precision}  step {seconds:.3f} s  compilation {compilation:.1f} s  "
        f"memory {planned:.2f} GiB",
        flush=True,
    )
    return seconds


def time_torch(size: int) -> float:
    """Prints and returns the seconds of the CutMix step in torch, passes in the same order."""
    import segmentation_models_pytorch as smp
    import torch

    networks = [
        smp.UnetPlusPlus(
            "resnet34", encoder_weights=None, in_channels=1, activation="sigmoid", **OPTIONS
        )
        for _ in range(2)
    ]
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]
    labelled, target, view_a, view_b = (torch.randn(CROPS, 1, size, size) for _ in range(4))
    target = (target > 0).float()
    mask = torch.zeros(CROPS, 1, size, size)
    mask[..., : size // 2, : size // 2] = 1

    def dice(prob: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        common, total = (prob * truth).sum(), (prob**2).sum() + (truth**2).sum()
        return 1 - (2 * common + 1e-5) / (total + 1e-5)

    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        with torch.no_grad():
            seen = [[network(view) for network in networks] for view in (view_a, view_b)]
        taught = [((1 - mask) * a + mask * b > 0.5).float() for a, b in zip(*seen, strict=True)]
        mixed = (1 - mask) * view_a + mask * view_b
        students = [network(mixed) for network in networks]
        own = [dice(network(labelled), target) for network in networks]
        cross = dice(students[0], taught[1]) + dice(students[1], taught[0])
        for optimizer in optimizers:
            optimizer.zero_grad()
        (own[0] + own[1] + cross).backward()
        for network, optimizer in zip(networks, optimizers, strict=True):
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    print(f"torch        float32  step {seconds:.3f} s", flush=True)
    return seconds


def main() -> None:
    """Parses the arguments and times each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {arguments.size} px")
    seconds = {}
    for form in arguments.forms.split(","):
        seconds[form] = time_form(form, arguments.size, arguments.precision)
        if arguments.torch and form == "reference":
            seconds["torch"] = time_torch(arguments.size)
    for form in seconds:
        for other in ("supervised", "torch"):
            if other in seconds and form != other:
                print(f"{form} / {other}: {seconds[form] / seconds[other]:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.1f} GiB")


if __name__ == "__main__":
    main()
