"""Training time per volume of every network and method: the paper's Table 1, measured here.

    python benchmarks/train_time.py --configs=configs/ssl_unetplusplus_cutmix.py --output=r.json \\
        [--batch=8 --crop=256 --precision=bfloat16 --peer=torch]

Each configuration's own step (cutting crops, forward, losses, backward, clip, update) on random
slices: median of warm steps, compilation, memory, FLOPs of its convolutions and products, and the
share of what a large matrix product reaches on the same device in the same type. Times the steps of
the configuration that is the training time of one volume; at another batch or crop than the
configuration's it is extrapolated in proportion to the pixels, and marked so. `--peer=torch` runs
the same step with segmentation_models_pytorch in the same process, right before: jax keeps most of
a GPU's memory once it has begun. `--profile=DIR` leaves a trace of three more steps for
TensorBoard or Perfetto.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from counting import count_flops, plain_forms
from peers import FORMS, has_peer, require, time_torch
from recording import (
    datasheet_bytes,
    datasheet_flops,
    first_line,
    host_peak_gib,
    record,
    seconds,
    spread,
)
from steps import matmul_flops, prepare_step, with_size

from vemseg_jax import configs as experiments
from vemseg_jax.config import PRECISIONS, ExperimentConfig, is_pair
from vemseg_jax.models.registry import model_name
from vemseg_jax.parallel import Placement
from vemseg_jax.train.parts import repeated

_CONFIGS = flags.DEFINE_list("configs", None, "Configuration files.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file.")
_BATCH = flags.DEFINE_integer("batch", None, "Crops a step; default the configuration's.")
_CROP = flags.DEFINE_integer("crop", None, "Side of a crop; default the configuration's.")
_PRECISION = flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "Type of activations.")
_STATISTICS = flags.DEFINE_enum("statistics", None, ["reference", "merged"], "Of a pair.")
_VMAPPED = flags.DEFINE_bool("vmapped", False, "A pair in one vmapped pass, for comparison.")
_SCAN = flags.DEFINE_integer("steps_per_dispatch", 1, "Steps in one dispatch.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Dispatches that are timed.", 1)
_PEER = flags.DEFINE_enum("peer", None, ["torch"], "Also time the same step with it.")
_PROFILE = flags.DEFINE_string("profile", None, "Folder for a trace of three steps.")


def _bytes_accessed(compiled: Any) -> float | None:
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float((cost or {}).get("bytes accessed", 0)) or None


def measure(config: ExperimentConfig, schedule: ExperimentConfig) -> dict[str, Any]:
    """What `config` takes, and of it a volume, whose steps `schedule` has."""
    prepared = prepare_step(config, Placement())
    step, state, (planes, crops) = prepared.step, prepared.state, prepared.data
    count = _SCAN.value
    # Of the step as a network has it, whatever the platform makes of it.
    with plain_forms():
        flops = count_flops(step, state, planes, crops)
    if count > 1:
        crops = jax.tree.map(lambda x: jax.numpy.stack([x] * count), crops)
        step = repeated(step)
    start = time.perf_counter()
    lowered = step.lower(state, planes, crops)  # type: ignore[attr-defined]
    compiled = lowered.compile()
    compilation = time.perf_counter() - start
    # Loops are counted once, those of several steps too.
    moved = _bytes_accessed(compiled)
    planned = compiled.memory_analysis()

    def dispatch() -> Any:
        nonlocal state
        state, metrics = compiled(state, planes, crops)
        return metrics

    times = [t / count for t in seconds(dispatch, repeats=_REPEATS.value)]
    median = spread(times)["median"]
    stats = jax.devices()[0].memory_stats() or {}
    if _PROFILE.value:
        name = f"{model_name(config.model)}_{config.cps.method}_{config.train.precision}"
        with jax.profiler.trace(str(Path(_PROFILE.value) / name)):
            for _ in range(3):
                jax.block_until_ready(dispatch())
    pixels = config.train.batch_size * config.data.crop_size**2
    usual = schedule.train.batch_size * schedule.data.crop_size**2
    product = matmul_flops(config.train.precision)
    rate, device = flops / median, jax.devices()[0].device_kind
    promised = datasheet_flops(device, config.train.precision)
    bandwidth = datasheet_bytes(device)
    least = None
    if promised and bandwidth and moved:
        least = max(flops / promised, moved / bandwidth)
    return {
        "statistics": config.cps.statistics if is_pair(config) else None,
        "vmapped": config.cps.vmapped,
        "profiled": bool(_PROFILE.value),
        "steps_per_dispatch": count,
        "parameters": prepared.parameters,
        "parameters_trained": prepared.parameters * (2 if is_pair(config) else 1),
        "initial_seconds": prepared.initial_seconds,
        "compile_seconds": compilation,
        "step_seconds": spread(times),
        "flops": flops,
        "bytes_accessed": moved,
        "matmul_flops_per_second": product,
        "share_of_matmul": rate / product,
        "share_of_datasheet": rate / promised if promised else None,
        "share_of_roofline": least / median if least else None,
        "memory_planned_gib": (planned.temp_size_in_bytes + planned.argument_size_in_bytes) / 2**30,
        "memory_device_peak_gib": stats.get("peak_bytes_in_use", 0) / 2**30 or None,
        "memory_host_peak_gib": host_peak_gib(),
        "schedule_steps": schedule.train.steps,
        "schedule_pixels": usual,
        "volume_hours": schedule.train.steps * median * (usual / pixels) / 3600,
    }


def measure_peer(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Rows of torch; a form that fails says why."""
    rows = []
    for name, (channels_last, compiled) in FORMS.items():
        row: dict[str, Any] = {"framework": name}
        try:
            timed = time_torch(
                config, channels_last=channels_last, compiled=compiled, repeats=_REPEATS.value
            )
        except Exception as error:  # whatever a compiler says belongs into the table
            row["failed"] = f"{type(error).__name__}: {first_line(error)}"
        else:
            row |= {
                "step_seconds": spread(timed.times),
                "compile_seconds": timed.first,
                "parameters": timed.parameters,
                "memory_device_peak_gib": timed.memory_gib,
                "version": timed.version,
            }
        rows.append(row)
    return rows


def describe(config: ExperimentConfig, schedule: ExperimentConfig) -> dict[str, Any]:
    """What rows of jax and of a peer have in common: `config` is what runs."""
    batch, crop = config.train.batch_size, config.data.crop_size
    return {
        "network": model_name(config.model),
        "encoder_depth": getattr(config.model, "encoder_depth", None),
        "method": config.cps.method,
        "precision": config.train.precision,
        "batch": batch,
        "crop": crop,
        "extrapolated": (batch, crop) != (schedule.train.batch_size, schedule.data.crop_size),
    }


def attempt(config: ExperimentConfig, schedule: ExperimentConfig) -> dict[str, Any]:
    """A row of jax, or why it `failed`: a peer that was measured stays."""
    row = {"framework": "jax", **describe(config, schedule)}
    try:
        return row | measure(config, schedule)
    except jax.errors.JaxRuntimeError as error:
        return row | {"failed": first_line(error)}


def beside(row: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """The row of a peer with how long ours takes of its step, where both have one."""
    if "failed" in row or "failed" in peer:
        return peer
    ratio = row["step_seconds"]["median"] / peer["step_seconds"]["median"]
    return peer | {"jax_over_peer": ratio, "volume_hours": row["volume_hours"] / ratio}


def _line(row: dict[str, Any]) -> str:
    head = f"{row['network']:15s} {row['method']:11s} {row['framework']:30s} {row['precision']:9s}"
    if "failed" in row:
        return f"{head} failed: {row['failed']}"
    step = row["step_seconds"]
    text = f"{head} {row['batch']} x {row['crop']}  step {step['median']:.4f} s"
    text += f" ({step['low']:.4f} to {step['high']:.4f})"
    if "volume_hours" not in row:  # of a peer, where ours failed
        return text
    text += f"  volume {row['volume_hours']:.1f} h"
    if "jax_over_peer" in row:
        return f"{text}  jax takes {row['jax_over_peer']:.2f} of it"
    share = f"{row['share_of_matmul']:.0%} of a matrix product"
    return f"{text}  compilation {row['compile_seconds']:.1f} s  {share}"


def main(argv: list[str]) -> None:
    """Measures each configuration in turn and prints a line each."""
    del argv
    logging.set_verbosity(logging.WARNING)
    if _PEER.value:
        require()
    rows: list[dict[str, Any]] = []
    for path in _CONFIGS.value:
        schedule = experiments.get(path)
        config = with_size(
            schedule, batch=_BATCH.value, crop=_CROP.value, precision=_PRECISION.value
        )
        statistics = _STATISTICS.value or config.cps.statistics
        config.cps = dataclasses.replace(
            config.cps, statistics=statistics, vmapped=_VMAPPED.value and is_pair(config)
        )
        peers = []
        if _PEER.value and has_peer(config):
            peers = measure_peer(config)
        elif _PEER.value:
            print(f"{model_name(config.model)}: segmentation_models_pytorch has no such network")
        shared = describe(config, schedule)
        row = {"config": Path(path).stem, **attempt(config, schedule)}
        found = [row, *(beside(row, shared | peer) for peer in peers)]
        for each in found:
            print(_line(each), flush=True)
        rows += found
        record(_OUTPUT.value, "train_time", rows)


if __name__ == "__main__":
    app.run(main)
