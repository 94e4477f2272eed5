"""Golden boxes of CutMix, and whole steps of two networks that teach each other."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.result import Result, compare
from vemseg_jax.config import LossConfig, OptimizerConfig
from vemseg_jax.data import cutmix
from vemseg_jax.data.cutmix import views
from vemseg_jax.data.input_pipeline import Batch
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
COUNTER = re.compile("num_batches_tracked$")
# What 10,000 draws of the reference leave open, most of it at the 1 % and 99 % levels.
QUANTILES = {"area": 0.01, "aspect": 0.06, "height_frac": 0.03, "width_frac": 0.03}


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
    assert boxes.min() >= 0 and np.all(boxes[:, 2:] <= (height, width))
    extent = (boxes[:, 2:] - boxes[:, :2]) / (height, width)
    found = {
        "area": extent.prod(-1),
        "aspect": extent[:, 0] / extent[:, 1],
        "height_frac": extent[:, 0],
        "width_frac": extent[:, 1],
    }
    levels = golden["stats/quantile_levels"]
    for name, tolerance in QUANTILES.items():
        quantiles, expected = np.quantile(found[name], levels), golden[f"stats/{name}_quantiles"]
        yield compare(f"{name}_quantiles", quantiles / expected, np.ones(len(levels)), tolerance)
    logs = np.log(found["aspect"])
    moments = np.asarray([logs.mean(), logs.std()])
    yield compare("log_aspect_mean_std", moments, golden["stats/log_aspect_mean_std"], 0.02)
    cells = [(np.arange(8) + 0.5) * side / 8 for side in (height, width)]
    rows, columns = (
        (c >= boxes[:, n, None]) & (c < boxes[:, n + 2, None]) for n, c in enumerate(cells)
    )
    coverage = np.einsum("ny,nx->yx", rows.astype(float), columns.astype(float)) / len(boxes)
    yield compare("coverage_8x8", coverage, golden["stats/coverage_8x8"], 0.03)


def _networks(golden: Mapping[str, np.ndarray]) -> tuple[Any, list[dict]]:
    states = [
        {
            k.removeprefix(f"{net}/state/"): golden[k]
            for k in golden
            if k.startswith(f"{net}/state/")
        }
        for net in NETWORKS
    ]
    channels = states[0]["inc.double_conv.0.weight"].shape[0]
    config = registry.model_config("small_unet", base_channels=channels)
    return config, [torch_import.to_flax(config, state) for state in states]


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
    weight = consistency_ramp(golden["epoch"])
    yield compare("lambda", weight, golden["lambda"], 1e-6)
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
            yield compare(key, metrics[f"{ours}_{n}"], golden[f"f64/{key}"], 2e-6)
    yield compare("loss", metrics["loss"], golden["f64/loss"], 2e-6)
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
            yield compare(key, np.moveaxis(prob, -1, 1), golden[key], 1e-4)
        labels = pseudo_labels(taught[n - 1], exclusive=False)
        yield compare(f"pseudo_{n}", np.moveaxis(labels, -1, 1), golden[f"pseudo_{n}"], 0)


def _network_after(golden, config, net, n, state, after, metrics) -> Iterator[Result]:
    norm = float(golden[f"{net}/grad_norm"])
    yield compare(f"{net}/grad_norm", metrics[f"grad_norm_{n + 1}"], norm, 3.1e-3 * norm)
    moments = pair.network(after.opt_state, n)[0][1]
    like = pair.network(state.params, n)
    mean, square = (
        torch_import.to_torch(config, unpack(tree, like)) for tree in (moments.mu, moments.nu)
    )
    for name in [k for k in mean if f"{net}/grad/{k}" in golden]:
        clipped = min(1, 1 / (norm + 1e-6))
        found = {
            "grad": np.asarray(mean[name]) / 0.1 / clipped,
            "adam_exp_avg": mean[name],
            "adam_exp_avg_sq": square[name],
        }
        for kind, value in found.items():
            expected = golden[f"{net}/{kind}/{name}"]
            tolerance = (1e-3 if kind == "grad" else 2e-4) * np.abs(expected).max()
            yield compare(f"{net}/{kind}/{name}", value, expected, tolerance)
    params = torch_import.to_torch(config, pair.network(after.params, n))
    stats = torch_import.to_torch(config, pair.network(after.batch_stats, n))
    expected = _after(golden, f"{net}/params_after/", skip=NO_GRADIENT)
    yield from _updated(f"{net}/params_after", params, expected, mean)
    expected = _after(golden, f"{net}/buffers_after/", skip=COUNTER)
    worst = max(compare(name, stats[name], value, 1e-6).error for name, value in expected.items())
    yield Result(f"{net}/buffers_after, {len(expected)} tensors", worst, 1e-6)


def _after(golden, head: str, skip: re.Pattern) -> dict[str, np.ndarray]:
    names = [k.removeprefix(head) for k in golden if k.startswith(head)]
    return {name: golden[head + name] for name in names if not skip.search(name)}


def _updated(what: str, params, expected, gradient) -> Iterator[Result]:
    """Weights after Adam: where the gradient has a sign all but exact, elsewhere within a step."""
    found = {name: compare(name, params[name], value, 1e-4) for name, value in expected.items()}
    wrong = [r.what for r in found.values() if not np.isfinite(r.error)]
    if wrong:
        yield Result(f"{what}: {wrong}", np.inf, 1e-4)
        return
    decided = {k: abs(gradient[k]) >= ROUNDING * abs(gradient[k]).max() for k in expected}
    worst = max(np.abs(params[k] - expected[k])[decided[k]].max() for k in expected)
    yield Result(f"{what}, {len(expected)} tensors", float(worst), 1e-4)
    worst = max(result.error for result in found.values())
    # Adam's step is 1e-3; one to the other side is twice that.
    yield Result(f"{what}, with entries of rounding", worst, 2.1e-3)
    share = np.mean(np.concatenate([~of.ravel() for of in decided.values()]))
    yield Result(f"{what}, share of such entries", float(share), AT_MOST)
