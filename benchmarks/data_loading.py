"""Crops per second of both data paths and of a plain reader of TIFF files; memory of streaming.

    python benchmarks/data_loading.py --data=DIR [--slices=8 --size=4000,6000] [--parts=...]
        [--output=r.json]

One phantom with nucleoli, as TIFF files and converted, stays in DIR. The plain reader opens image
and label of a slice for each crop, draws positions until 2048 x 2048 pixels hold a nucleolus (as
the reference does), downsamples 4x and normalises. `crops` compares it with crops read from the
converted volume and with crops cut from slices on the device; `step` a training step that makes
its batch with one on a constant batch; `memory` streams from a volume larger than its budget.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tifffile
from absl import app, flags
from recording import host_peak_gib, record, spread

from vemseg_jax.config import (
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.data.crops.input_pipeline import make_batch
from vemseg_jax.data.crops.sources import Batches
from vemseg_jax.data.store.downsample import downsample_image, downsample_mask
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.data.store.volume_writer import create_label, create_volume
from vemseg_jax.models import registry
from vemseg_jax.paths import local_path
from vemseg_jax.train.batches import find_split, make_batches
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.state import create_state
from vemseg_jax.train.supervised import make_step, train_step

CROP, FULL_CROP, BATCH = 512, 2048, 10
NORMALIZATION = Normalization(mean=0.5, std=0.2, dtype_max=255)
PAIRS = 15
_DATA = flags.DEFINE_string("data", None, "Folder for the volumes.", required=True)
_SLICES = flags.DEFINE_integer("slices", 8, "Of the phantom.", 1)
_SIZE = flags.DEFINE_string("size", "4000,6000", "Rows and columns of the phantom.")
_PARTS = flags.DEFINE_list("parts", ["crops", "step", "memory"], "What to measure.")
_SECONDS = flags.DEFINE_float("seconds", 20.0, "That each way of reading is measured for.", 0.1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file.")
ONE_BYTE = 1e-9


def prepare(output: Path, slices: int, size: str) -> tuple[Path, Path]:
    """Folder of TIFF files and converted volume of a size; made once."""
    name = f"phantom_{slices}x{size.replace(',', 'x')}"
    stack, volume = output / name, output / f"{name}.zarr"
    run = [sys.executable, "-m"]
    if not stack.exists():
        flags = ["--preset=biopsy3", f"--shape={slices},{size}", "--voxel_size=320,4,4"]
        binary = "vemseg_jax.cli.phantom"
        subprocess.run([*run, binary, f"--output={stack}", *flags], check=True)
    if not volume.exists():
        flags = [f"--images={stack / 'images'}", f"--labels=nucleoli={stack / 'truth/nucleoli'}"]
        binary = "vemseg_jax.cli.convert"
        flags += [f"--output={volume}", "--voxel_size=320,4,4"]
        subprocess.run([*run, binary, *flags], check=True)
    return stack, volume


def plain_reader(stack: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops as a plain data loader makes them, from TIFF files."""
    pairs = [
        (path, stack / "truth/nucleoli" / path.name)
        for path in sorted((stack / "images").glob("*.tif"))
    ]
    if not all(label.exists() for _, label in pairs):
        labels = sorted((stack / "truth/nucleoli").glob("*.tif"))
        pairs = [(image, label) for (image, _), label in zip(pairs, labels, strict=True)]
    held = [pair for pair in pairs if tifffile.imread(pair[1]).any()]
    rng = np.random.default_rng(0)
    while True:
        image, label = (tifffile.imread(path) for path in held[rng.integers(len(held))])
        while True:
            y, x = (int(rng.integers(n - FULL_CROP + 1)) for n in label.shape)
            mask = label[y : y + FULL_CROP, x : x + FULL_CROP]
            if mask.any():
                break
        crop = downsample_image(image[y : y + FULL_CROP, x : x + FULL_CROP])
        yield NORMALIZATION(crop.astype(np.float32)), downsample_mask(mask > 0)


def configure(volume: Path, **data: Any) -> ExperimentConfig:
    """Supervised training on all labelled slices."""
    return ExperimentConfig(
        model=registry.model_config("small_unet"),
        data=DataConfig(
            volume=str(volume), structures=("nucleoli",), crop_size=CROP, num_val_slices=0, **data
        ),
        train=TrainConfig(batch_size=BATCH, steps=10**9),
    )


def open_batches(config: ExperimentConfig) -> Batches:
    """The batches of a configuration."""
    volume = open_volume(config.data.volume)
    return make_batches(volume, config, find_split(volume, config))


def rate(next_crops: Callable[[int], int]) -> float:
    """Crops a second; `next_crops(n)` does the n-th piece of work and returns its crops."""
    next_crops(0)
    crops, number, start = 0, 1, time.perf_counter()
    while time.perf_counter() - start < _SECONDS.value:
        crops += next_crops(number)
        number += 1
    return crops / (time.perf_counter() - start)


def compare_crops(stack: Path, volume: Path) -> list[dict]:
    """Crops a second of each way, alternately, three times."""
    reader = plain_reader(stack)
    cut = jax.jit(
        lambda planes, crops: make_batch(planes, crops, crop_size=CROP, normalization=NORMALIZATION)
    )

    def read_plain(_: int) -> int:
        next(reader)
        return 1

    def made_by(batches: Batches) -> Callable[[int], int]:
        def make(step: int) -> int:
            jax.block_until_ready(cut(*batches(step)))
            return BATCH

        return make

    def waited_for(batches: Batches) -> Callable[[int], int]:
        def wait(step: int) -> int:
            jax.block_until_ready(batches(step))
            return BATCH

        return wait

    exact = configure(volume, exact_offsets=True)
    with (
        open_batches(configure(volume)) as resident,
        open_batches(configure(volume, memory_budget_gib=ONE_BYTE)) as streamed,
        open_batches(exact) as offsets,
    ):
        ways = {
            "plain reader": read_plain,
            "streamed, as read": waited_for(streamed),
            "streamed, normalised and turned": made_by(streamed),
            "on the device, normalised and turned": made_by(resident),
            "streamed, exact offsets": waited_for(offsets),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3):
            for name, way in ways.items():
                found[name].append(rate(way))
    plain = statistics.median(found["plain reader"])
    rows = []
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name:38s} {median:9.1f} crops/s  {median / plain:7.1f} x the plain reader")
        row = {"part": "crops", "way": name, "crops_per_second": spread(rates)}
        rows.append(row | {"ratio": median / plain})
    return rows


def compare_steps(volume: Path) -> list[dict]:
    """A step of the smallest network with its batch made in it, and on a constant batch."""
    config = configure(volume)
    config.train.batch_size = 2
    model = registry.create_model(config.model)
    optimizer = create_optimizer(OptimizerConfig(schedule="constant"), steps=1)
    objective = make_objective(LossConfig(), exclusive=False, most_drops=0)
    step = make_step(
        model,
        optimizer,
        objective=objective,
        crop_size=CROP,
        normalization=NORMALIZATION,
        seed=0,
    )
    plain = jax.jit(
        lambda state, batch: train_step(
            state, batch, model=model, objective=objective, optimizer=optimizer, seed=0
        ),
        donate_argnums=0,
    )
    read = dataclasses.replace(
        config, data=dataclasses.replace(config.data, memory_budget_gib=ONE_BYTE)
    )
    with open_batches(config) as resident, open_batches(read) as streamed:
        batch = make_batch(*resident(0), crop_size=CROP, normalization=NORMALIZATION)
        ways: dict[str, Callable[[Any, int], Any]] = {
            "a constant batch": lambda state, _: plain(state, batch),
            "slices on the device": lambda state, n: step(state, *resident(n)),
            "crops read ahead": lambda state, n: step(state, *streamed(n)),
        }
        states = {n: create_state(model, optimizer, seed=0, channels=1) for n in ways}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(PAIRS + 2):
            for name, way in ways.items():
                start = time.perf_counter()
                states[name], metrics = way(states[name], number)
                jax.block_until_ready(metrics)
                times[name].append(time.perf_counter() - start)
    constant = times["a constant batch"][2:]
    rows = []
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds[2:], constant, strict=True)]
        row = {"part": "step", "way": name, "step_seconds": spread(seconds[2:])}
        rows.append(row | {"ratio": statistics.median(ratios)})
        print(
            f"{name:22s} {statistics.median(seconds[2:]):.3f} s a step, "
            f"{statistics.median(ratios):.3f} x the constant batch (median of {PAIRS} pairs)"
        )
    return rows


def measure_memory(output: Path) -> list[dict]:
    """Streams half a volume's crops, all slices labelled, from 3 GiB with 0.25 GiB of cache."""
    path, shape = output / "large.zarr", (512, 2000, 3000)
    if not path.exists():
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, shape[1:], np.uint8)
        mask = np.zeros(shape[1:], np.uint8)
        mask[900:1100, 1400:1600] = 1
        with create_volume(
            path, shape=shape, dtype=np.uint8, voxel_size=(40, 16, 16), downsample=1
        ) as writer:
            for z in range(shape[0]):
                writer.write(z, np.roll(noise, 37 * z, 1))
        with create_label(path, "nucleoli") as label:
            for z in range(shape[0]):
                label.write_mask(z, mask)
    config = configure(path, memory_budget_gib=0.25, cache_gib=0.25)
    before = host_peak_gib()
    with open_batches(config) as batches:
        opened = host_peak_gib()
        for step in range(300):
            batches(step)
            if step == 30:
                early = host_peak_gib()
    last = host_peak_gib()
    print(
        f"volume {np.prod(shape) / 2**30:.2f} GiB and as much of labels, budget and cache 0.25 GiB"
        f" each; peak memory {before:.2f} GiB at the start, {opened:.2f} with the positions of"
        f" {shape[0]} slices found, {early:.2f} after 30 steps, {last:.2f} after 300"
    )
    peaks = {"start": before, "positions": opened, "30 steps": early, "300 steps": last}
    return [{"part": "memory", "way": name, "peak_gib": gib} for name, gib in peaks.items()]


def main(argv: list[str]) -> None:
    """Runs the parts that were asked for."""
    del argv
    data, rows = local_path(_DATA.value, flag="--data"), []
    data.mkdir(parents=True, exist_ok=True)
    # First: its figures are the peak of the whole process.
    if "memory" in _PARTS.value:
        rows += measure_memory(data)
    if "crops" in _PARTS.value or "step" in _PARTS.value:
        stack, volume = prepare(data, _SLICES.value, _SIZE.value)
    if "crops" in _PARTS.value:
        rows += compare_crops(stack, volume)
    if "step" in _PARTS.value:
        rows += compare_steps(volume)
    record(_OUTPUT.value, "data_loading", rows, slices=_SLICES.value, size=_SIZE.value)


if __name__ == "__main__":
    app.run(main)
