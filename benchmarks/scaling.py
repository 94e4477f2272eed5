"""How time grows with work: a step with batch, crop and devices, inference with the slice.

    python benchmarks/scaling.py --what=batch,crop --config=configs/small_unet.py \\
        --output=r.json [--batches=1,2,4 --crops=128,256 --sizes=256,512]

Each kind doubles one thing and leaves the rest: the batch at the first crop, the crop at the first
batch, the devices at the largest batch (which they share), the side of a slice that passes whole.
On a CPU the devices are simulated by as many threads (`XLA_FLAGS=
--xla_force_host_platform_device_count=4`), which shows that the program runs, not what it gains.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from recording import first_line, record, seconds, spread
from steps import prepare_step, with_size

from vemseg_jax import configs as experiments
from vemseg_jax.config import PRECISIONS, ExperimentConfig
from vemseg_jax.infer import tiling
from vemseg_jax.infer.windows import plan_whole
from vemseg_jax.models import registry
from vemseg_jax.models.initial import initial_variables
from vemseg_jax.parallel import place

KINDS = ("batch", "crop", "devices", "inference")
_WHAT = flags.DEFINE_list("what", list(KINDS), f"Of {', '.join(KINDS)}.")
flags.register_validator(
    "what", lambda given: set(given) <= set(KINDS), f"must be among {', '.join(KINDS)}"
)
_CONFIG = flags.DEFINE_string("config", "configs/small_unet.py", "Configuration file.")
_BATCHES = flags.DEFINE_list("batches", ["1", "2", "4", "8"], "Crops a step, ascending.")
_CROPS = flags.DEFINE_list("crops", ["64", "128", "256"], "Sides of a crop, ascending.")
_SIZES = flags.DEFINE_list("sizes", ["256", "512", "1024"], "Sides of a slice, ascending.")
_PRECISION = flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "Type of activations.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Steps that are timed.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file.")


def attempt(time_it: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """`seconds`, or why it `failed`: what does not fit the memory ends no other measurement."""
    try:
        return {"seconds": time_it()}
    except jax.errors.JaxRuntimeError as error:
        return {"failed": first_line(error)}


def time_step(config: ExperimentConfig, *, devices: int) -> dict[str, float]:
    """Seconds of a step, with spread."""
    placement = place(config.train.batch_size, devices=devices)
    prepared = prepare_step(config, placement)
    state = prepared.state

    def step() -> Any:
        nonlocal state
        state, metrics = prepared.step(state, *prepared.data)
        return metrics

    return spread(seconds(step, repeats=_REPEATS.value))


def step_rows(config: ExperimentConfig) -> Iterator[dict[str, Any]]:
    """Step times along batch, crop and devices."""
    batches, crops = ([int(n) for n in f.value] for f in (_BATCHES, _CROPS))

    def row(kind: str, at: int, batch: int, crop: int, devices: int) -> dict[str, Any]:
        sized = with_size(config, batch=batch, crop=crop, precision=_PRECISION.value)
        fixed = {"batch": batch, "crop": crop, "devices": devices}
        return {"kind": kind, "at": at, **fixed} | attempt(
            lambda: time_step(sized, devices=devices)
        )

    if "batch" in _WHAT.value:
        yield from (row("batch", n, n, crops[0], 1) for n in batches)
    if "crop" in _WHAT.value:
        yield from (row("crop", n, batches[0], n, 1) for n in crops)
    if "devices" in _WHAT.value:
        counts = [n for n in (1, 2, 4, 8) if n <= jax.device_count()]
        yield from (row("devices", n, batches[-1], crops[-1], n) for n in counts)


def inference_rows(config: ExperimentConfig) -> Iterator[dict[str, Any]]:
    """Seconds of slices that pass whole, by their side."""
    model = registry.create_model(config.model, dtype=_PRECISION.value)
    variables = initial_variables(model, seed=0, channels=1)
    forward = tiling.make_forward(model.apply, variables)
    for side in (int(n) for n in _SIZES.value):
        plan = plan_whole((side, side)).over()
        image = np.random.default_rng(0).normal(size=(1, side, side)).astype(np.float32)

        def predict(image: np.ndarray = image, plan: Any = plan) -> Any:
            return tiling.predict_planes(forward, image, plan=plan, batch_size=1)

        yield {"kind": "inference", "at": side} | attempt(
            lambda predict=predict: spread(seconds(predict, repeats=_REPEATS.value))
        )


def main(argv: list[str]) -> None:
    """Measures what was asked for and prints a line each."""
    del argv
    logging.set_verbosity(logging.WARNING)
    config = experiments.get(_CONFIG.value)
    settings = {"config": Path(_CONFIG.value).stem, "precision": _PRECISION.value}
    rows: list[dict[str, Any]] = []
    for row in itertools.chain(
        step_rows(config), inference_rows(config) if "inference" in _WHAT.value else ()
    ):
        rows.append(row)
        said = row.get("failed") or f"{row['seconds']['median']:.4f} s"
        print(f"{row['kind']:10s} {row['at']:6d}  {said}", flush=True)
        record(_OUTPUT.value, "scaling", rows, **settings)


if __name__ == "__main__":
    app.run(main)
