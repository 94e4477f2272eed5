"""Golden boxes of CutMix, and whole steps of two networks that teach each other."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ks_2samp

from tests.parity import tolerances
from tests.parity.result import Result, compare, worst
from tests.parity.weights import golden_state, small_unet_config
from vemseg_jax.config import LossConfig, OptimizerConfig
from vemseg_jax.data.crops import cutmix
from vemseg_jax.data.crops.cutmix import views
from vemseg_jax.data.crops.input_pipeline import Batch
from vemseg_jax.models import pair, registry, torch_import
from vemseg_jax.train.cps import (
    CPSRule,
    Passes,
    cps_step,
    cross_passes,
    cutmix_passes,
    pseudo_labels,
)
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.packed import unpack
from vemseg_jax.train.plateau import Plateau
from vemseg_jax.train.schedules import consistency_ramp
from vemseg_jax.train.state import TrainState

NETWORKS = ("net1", "net2")
# Straight before a BatchNorm: no gradient but rounding, which Adam makes a whole step.
NO_GRADIENT = re.compile(r"double_conv\.[03]\.bias$")
# Entries whose gradient is below this share of the largest of their tensor are rounding as well
# (torch's own float32 is off by 2.8e-6), of either sign; no more than this share of all entries.
ROUNDING, AT_MOST = 1e-5, 1e-3
FULL_WEIGHTS = (1.0, 1.5)
COUNTER = re.compile("num_batches_tracked$")


def check_box_masks(golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Boxes and masks from the reference's random numbers, and the distribution of ours."""
    for key in [k.removesuffix("/masks") for k in golden if k.endswith("/masks")]:
        seed, count, height, width = map(int, re.findall(r"\d+", key))
        rng = np.random.RandomState(seed)
        area = rng.uniform(0.25, 0.5, (count, 1))[:, 0]
        shape, place = rng.uniform(size=(count, 1))[:, 0], rng.uniform(size=(count, 1, 2))[:, 0]
        with jax.enable_x64(True):
            boxes = cutmix.boxes_of((area - 0.25) / 0.25, shape, place, (height, width))
            masks = np.moveaxis(np.asarray(cutmix.box_masks(boxes, (height, width))), -1, 1)
        yield compare(f"{key}/boxes", boxes, golden[f"{key}/boxes_y0x0y1x1"], 0)
        yield compare(f"{key}/masks", masks, golden[f"{key}/masks"], 0)
    yield from _distribution(golden)


def _distribution(golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    height, width = (int(n) for n in golden["stats/shape"])
    numbers = jax.random.uniform(jax.random.key(0), (100_000, 4))
    boxes = cutmix.boxes_of(numbers[:, 0], numbers[:, 1], numbers[:, 2:], (height, width))
    boxes = np.asarray(boxes, np.float64)
    outside = np.maximum(-boxes, 0).max() + np.maximum(boxes[:, 2:] - (height, width), 0).max()
    yield Result("boxes outside of the image", float(outside), 0)
    ours = _measures(boxes, height, width)
    theirs = _measures(golden["stats/boxes_y0x0y1x1"].astype(np.float64), height, width)
    for name in ours:
        distance = ks_2samp(ours[name], theirs[name]).statistic
        yield Result(f"{name}, Kolmogorov-Smirnov", float(distance), tolerances.BOXES_KS)
    moments = np.asarray([ours["log_aspect"].mean(), ours["log_aspect"].std()])
    expected = golden["stats/log_aspect_mean_std"]
    yield compare("log_aspect_mean_std", moments, expected, tolerances.BOXES_LOG_ASPECT)
    mean = golden["stats/area_mean_std_min_max"][0]
    yield compare("mean area", ours["area"].mean(), mean, tolerances.BOXES_AREA)
    # Whether the file's own summaries are those of its boxes, so that they are used as meant.
    levels = golden["stats/quantile_levels"]
    summaries = theirs | {"aspect": np.exp(theirs["log_aspect"])}
    for name in ("area", "aspect", "height_frac", "width_frac"):
        found = np.quantile(summaries[name], levels)
        yield compare(f"{name}_quantiles", found, golden[f"stats/{name}_quantiles"], 1e-6)
    yield compare(
        "coverage_8x8",
        _coverage(boxes, height, width),
        golden["stats/coverage_8x8"],
        tolerances.BOXES_COVERAGE,
    )


def _measures(boxes: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    extent = (boxes[:, 2:] - boxes[:, :2]) / (height, width)
    return {
        "area": extent.prod(-1),
        "log_aspect": np.log(extent[:, 0] / extent[:, 1]),
        "height_frac": extent[:, 0],
        "width_frac": extent[:, 1],
        "y0": boxes[:, 0],
        "x0": boxes[:, 1],
    }


def _coverage(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """How often the middle of each of 8 x 8 cells lies in a box."""
    cells = [(np.arange(8) + 0.5) * side / 8 for side in (height, width)]
    rows, columns = (
        (c >= boxes[:, n, None]) & (c < boxes[:, n + 2, None]) for n, c in enumerate(cells)
    )
    return np.einsum("ny,nx->yx", rows.astype(float), columns.astype(float)) / len(boxes)


def _networks(golden: Mapping[str, np.ndarray]) -> tuple[Any, list[dict]]:
    states = [golden_state(golden, f"{net}/") for net in NETWORKS]
    config = small_unet_config(states[0])
    return config, [torch_import.to_flax(config, state) for state in states]


def _weight(golden: Mapping[str, np.ndarray]) -> float:
    """The weight of consistency at the file's epoch; which it ends at is not recorded."""
    found = [float(consistency_ramp(golden["epoch"], weight=end)) for end in FULL_WEIGHTS]
    return min(found, key=lambda weight: abs(weight - float(golden["lambda"])))


def check_cps_step(golden: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Passes, losses, gradients, batch statistics and weights of one whole step."""
    config, variables = _networks(golden)
    model = registry.create_model(config)
    objective = make_objective(LossConfig(), exclusive=False, most_drops=0)
    optimizer = create_optimizer(OptimizerConfig(schedule="constant"), steps=10)
    nhwc = {
        name: jnp.moveaxis(jnp.asarray(golden[name], jnp.float32), 1, -1)
        for name in ("l_images", "ul_images", "target", "mix_mask")
        if name in golden
    }
    mask = nhwc.get("mix_mask")
    rule = CPSRule(supervised=objective, cross=objective, cutmix=mask is not None)
    ones = jnp.ones_like(nhwc["target"])
    labelled = Batch(nhwc["l_images"], nhwc["target"], ones, ones)
    unlabelled = Batch(nhwc["ul_images"], None, None, jnp.ones_like(nhwc["ul_images"]))
    weight = _weight(golden)
    yield compare("lambda", weight, golden["lambda"], tolerances.LOSS)
    params, stats = (pair.join(*(v[name] for v in variables)) for name in ("params", "batch_stats"))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=stats,
        opt_state=jax.vmap(optimizer.init)(params),
        plateau=Plateau.start(),
    )
    yield from _passes(golden, model, rule, state, labelled, unlabelled, mask)
    after, metrics = jax.jit(
        lambda state: cps_step(
            state,
            labelled,
            unlabelled,
            model=model,
            rule=rule,
            optimizer=optimizer,
            weight=jnp.asarray(weight, jnp.float32),
            mask=mask,
            seed=0,
        )
    )(state)
    names = {"supervised": "dice_{}", "cross": "cps{}"}
    for ours, theirs in names.items():
        for n in (1, 2):
            key = theirs.format(n)
            yield compare(key, metrics[f"{ours}_{n}"], golden[f"f64/{key}"], tolerances.LOSS)
    yield compare("loss", metrics["loss"], golden["f64/loss"], tolerances.LOSS)
    for n, net in enumerate(NETWORKS):
        yield from _network_after(golden, config, net, n, state, after, metrics)


def _passes(golden, model, rule, state, labelled, unlabelled, mask) -> Iterator[Result]:
    def run(params, stats):
        passes = Passes(
            model,
            rule,
            tuple(pair.network(stats, n) for n in (0, 1)),
            jax.random.key(0),
        )
        params = tuple(pair.network(params, n) for n in (0, 1))
        crops = ((labelled.image, labelled.seen), (unlabelled.image, unlabelled.seen))
        if mask is None:
            return cross_passes(rule, passes, params, *crops)
        return cutmix_passes(rule, passes, params, *crops, mask)

    supervised, students, taught, (image, _) = jax.jit(run)(state.params, state.batch_stats)
    if mask is not None:
        yield compare("mixed", np.moveaxis(image, -1, 1), golden["mixed"], 0)
        for view, found in zip(
            ("view_a", "view_b"), views(labelled.image, unlabelled.image), strict=True
        ):
            yield compare(view, np.moveaxis(found, -1, 1), golden[view], 0)
    for n in (1, 2):
        found = {"sup": supervised[n - 1]["prob"]}
        if mask is None:
            found["pred"] = students[n - 1]["prob"]
        else:
            found |= {"student": students[n - 1]["prob"], "teacher_mixed": taught[n - 1]}
        for name, prob in found.items():
            key = f"{name}_{n}"
            yield compare(key, np.moveaxis(prob, -1, 1), golden[key], tolerances.PROBABILITY)
        labels = pseudo_labels(taught[n - 1], exclusive=False)
        yield compare(f"pseudo_{n}", np.moveaxis(labels, -1, 1), golden[f"pseudo_{n}"], 0)


def _network_after(golden, config, net, n, state, after, metrics) -> Iterator[Result]:
    norm = float(golden[f"{net}/grad_norm"])
    tolerance = tolerances.share(tolerances.NORM_SHARES, norm, norm)
    yield compare(f"{net}/grad_norm", metrics[f"grad_norm_{n + 1}"], norm, tolerance)
    moments = pair.network(after.opt_state, n)[0][1]
    like = pair.network(state.params, n)
    mean, square = (
        torch_import.to_torch(config, unpack(tree, like)) for tree in (moments.mu, moments.nu)
    )
    clipped = min(1, 1 / (norm + 1e-6))
    for name in [k for k in mean if f"{net}/grad/{k}" in golden]:
        found = {
            "grad": np.asarray(mean[name]) / 0.1 / clipped,
            "adam_exp_avg": mean[name],
            "adam_exp_avg_sq": square[name],
        }
        for kind, value in found.items():
            expected = golden[f"{net}/{kind}/{name}"]
            largest = np.abs(golden[f"{net}/grad/{name}"]).max()
            share = tolerances.share(tolerances.GRADIENT_SHARES, largest, norm) / largest
            tolerance = tolerances.MOMENT_FACTORS.get(kind, 1) * share * np.abs(expected).max()
            yield compare(f"{net}/{kind}/{name}", value, expected, tolerance)
    params = torch_import.to_torch(config, pair.network(after.params, n))
    stats = torch_import.to_torch(config, pair.network(after.batch_stats, n))
    expected = _after(golden, f"{net}/params_after/", skip=NO_GRADIENT)
    yield from _updated(f"{net}/params_after", params, expected, mean)
    expected = _after(golden, f"{net}/buffers_after/", skip=COUNTER)
    tolerance = tolerances.STATISTICS
    errors = [
        compare(name, stats[name], value, tolerance).error for name, value in expected.items()
    ]
    yield worst(f"{net}/buffers_after, {len(expected)} tensors", errors, tolerance)


def _after(golden, head: str, skip: re.Pattern) -> dict[str, np.ndarray]:
    names = [k.removeprefix(head) for k in golden if k.startswith(head)]
    return {name: golden[head + name] for name in names if not skip.search(name)}


def _updated(what: str, params, expected, gradient) -> Iterator[Result]:
    """Weights after Adam: where the gradient has a sign all but exact, elsewhere within a step."""
    limit = tolerances.UPDATED
    found = {name: compare(name, params[name], value, limit) for name, value in expected.items()}
    wrong = [r.what for r in found.values() if not np.isfinite(r.error)]
    if wrong or not found:
        yield Result(f"{what}: {wrong or 'none'}", np.inf, limit)
        return
    decided = {k: abs(gradient[k]) >= ROUNDING * abs(gradient[k]).max() for k in expected}
    errors = [np.abs(params[k] - expected[k])[decided[k]].max(initial=0) for k in expected]
    yield worst(f"{what}, {len(expected)} tensors", errors, limit)
    errors = [result.error for result in found.values()]
    # Adam's step is 1e-3; one to the other side is twice that.
    yield worst(f"{what}, with entries of rounding", errors, 2.1e-3)
    share = np.mean(np.concatenate([~of.ravel() for of in decided.values()]))
    yield Result(f"{what}, share of such entries", float(share), AT_MOST)
