"""Slices per second of whole-volume inference, and the same network in the reference's scheme.

    python benchmarks/inference.py [--network=unetplusplus --size=3976,6065 --slices=2]
        [--precision=bfloat16 --output=r.json]

The reference's scheme, slice by slice: windows of 2048 pixels at every 512 of full resolution, each
downsampled, passed and enlarged by itself, averaged. `window full` gives the same numbers, but
downsamples a slice once and averages on the device; `window` works at training scale throughout;
`whole` passes each slice once at training scale. Random weights; masks are what comes out.
"""

from vemseg_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()  # before jax is imported

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags
from recording import record, spread

from vemseg_jax.config import PRECISIONS
from vemseg_jax.data.store.downsample import downsample_image
from vemseg_jax.infer import tiling
from vemseg_jax.infer.windows import STRIDE_SHARE, Planner, plan_whole, plan_windows
from vemseg_jax.models import registry
from vemseg_jax.models.initial import initial_variables
from vemseg_jax.resize import resize_bilinear

CROP, SCALE, BATCH = 512, 4, 4
DEPTH3 = {"encoder_depth": 3, "decoder_channels": (128, 64, 16)}
OPTIONS = {"unetplusplus": DEPTH3}
REPEATS = 3
_NETWORK = flags.DEFINE_string("network", "unetplusplus", "Registered name.")
_SIZE = flags.DEFINE_list("size", ["3976", "6065"], "Rows and columns of a slice.")
_SLICES = flags.DEFINE_integer("slices", 2, "Slices at once.", 1)
_PRECISION = flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "Type of activations.")
_REFERENCE = flags.DEFINE_bool("reference", True, "Also time the reference's scheme.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file.")


def reference_scheme(forward: Callable, image: np.ndarray) -> np.ndarray:
    """One slice, window by window, as the reference's loop does it."""
    kernel = CROP * SCALE
    plan = plan_windows(image.shape, kernel=kernel, stride=kernel // STRIDE_SHARE).over()
    padded = np.pad(image, plan.padding, mode="reflect")
    total = np.zeros(plan.shape, np.float32)
    for y, x in plan.corners:
        window = padded[y : y + kernel, x : x + kernel]
        total[y : y + kernel, x : x + kernel] += np.asarray(forward(window[None, ..., None]))[
            0, ..., 0
        ]
    (top, _), (left, _) = plan.padding
    mean = (total / plan.total)[top : top + image.shape[0], left : left + image.shape[1]]
    return (mean > 0.5).astype(np.uint8)


def main(argv: list[str]) -> None:
    """Times the ways one after the other, several times over."""
    del argv
    network, (h, w) = _NETWORK.value, (int(n) for n in _SIZE.value)
    model_config = registry.model_config(network, **OPTIONS.get(network, {}))
    model = registry.create_model(model_config, dtype=_PRECISION.value)
    variables = initial_variables(model, seed=0, channels=1)
    images = np.random.default_rng(0).normal(size=(_SLICES.value, h, w)).astype(np.float32)
    small = downsample_image(images)
    plain = tiling.make_forward(model.apply, variables)
    enlarging = tiling.make_forward(model.apply, variables, scale=SCALE)

    @jax.jit
    def one_window(window: jax.Array) -> jax.Array:
        prob = plain(resize_bilinear(window, (CROP, CROP)))
        return resize_bilinear(prob, window.shape[1:3])

    def decided(images: np.ndarray, planner: Planner, batch: int, scale: int = 1) -> np.ndarray:
        forward, plan = plain if scale == 1 else enlarging, planner.over()
        batch = min(batch, len(images) * len(plan.corners))
        prob = tiling.predict_planes(forward, images, plan=plan, batch_size=batch, scale=scale)
        return np.asarray(tiling.to_mask(prob))

    def windows(shape: tuple[int, int], scale: int) -> Planner:
        return plan_windows(shape, kernel=CROP * scale, stride=CROP * scale // STRIDE_SHARE)

    ways: dict[str, Callable[[], object]] = {
        "reference's scheme": lambda: [reference_scheme(one_window, image) for image in images],
        "window full": lambda: decided(images, windows((h, w), SCALE), BATCH, SCALE),
        "window": lambda: decided(small, windows(small.shape[1:], 1), BATCH),
        "whole": lambda: decided(small, plan_whole(small.shape[1:]), 1),
    }
    if not _REFERENCE.value:
        del ways["reference's scheme"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:  # the first compiles
                times[name].append((time.perf_counter() - start) / len(images))
    first = next(iter(times))
    slowest = statistics.median(times[first])
    print(f"{network}, slices of {h} x {w}, {jax.devices()[0].device_kind}")
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        rows.append({"way": name, "seconds_a_slice": spread(seconds), "faster": slowest / median})
        print(f"{name:20s} {median:8.3f} s a slice  {slowest / median:6.2f} x {first}")
    settings = {"network": network, "size": [h, w], "precision": _PRECISION.value}
    record(_OUTPUT.value, "inference", rows, **settings)


if __name__ == "__main__":
    app.run(main)
