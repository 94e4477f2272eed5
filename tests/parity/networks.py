"""Golden networks: outputs, BatchNorm statistics, loss and gradients."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, compare, worst
from tests.parity.weights import golden_state
from vemseg_jax.losses.dice import dice_coef_loss, soft_dice_loss
from vemseg_jax.losses.senformer import senformer_loss
from vemseg_jax.losses.tanimoto import multitask_losses
from vemseg_jax.models import registry, torch_import

OUTPUT_NAMES = {"segm": "prob", "bound": "boundary", "dist": "distance"}
OUTPUT_NAMES |= {f"logits_{n}": f"learner_{n}" for n in range(4)}

Golden = Mapping[str, np.ndarray]


def model_config(reference: Mapping) -> registry.ModelConfig:
    """The project's configuration for one in the reference's parameter names."""
    name, classes = reference["model"], reference.get("nclasses", 1)
    channels = reference.get("in_channels", 1)
    common = {"in_channels": channels, "num_classes": classes}
    if name == "smallunet":
        return registry.model_config(
            "small_unet",
            base_channels=reference["nchannels_start"],
            bilinear=reference.get("bilinear", True),
            **common,
        )
    if name == "unet":
        return registry.model_config(
            "unet",
            base_channels=reference.get("nchannels_start", 64),
            bilinear=reference.get("bilinear", True),
            **common,
        )
    if name == "resunet":
        return registry.model_config("resunet", filters=tuple(reference["filters"]), **common)
    if name in ("fractal_resnet", "ceecnet_v1", "ceecnet_v2"):
        return registry.model_config(name, **_xnet_options(reference), **common)
    if name in ("unetplusplus", "smp_unet"):
        return registry.model_config(
            name,
            encoder=reference["encoder"],
            encoder_depth=reference["encoder_depth"],
            decoder_channels=tuple(reference["decoder_channels"]),
            **common,
        )
    if name == "senformer":
        return registry.model_config(
            name,
            in_channels=reference["in_chans"],
            num_classes=reference["num_classes"],
            backbone=reference["swin"],
            heads=reference["num_heads"],
            branch_depth=reference["branch_depth"],
            drop_path=0.0,  # the recorded train mode has it off
        )
    raise KeyError(f"no network for the reference's {name!r} yet")


def _xnet_options(reference: Mapping) -> dict:
    if any(width != 1 for width in reference["widths"]):
        raise KeyError(f"units per level {reference['widths']}: the reference cannot run them")
    return {
        "exclusive": reference.get("nclasses", 1) > 1,
        "filters": reference["nfilters_init"],
        "depth": reference["depth"],
        "psp_depth": reference["psp_depth"],
        "norm": {"GroupNorm": "group", "BatchNorm": "batch"}[reference["norm_type"]],
        "norm_groups": reference["norm_groups"] or 1,
        "heads": reference["nheads_start"],
        "up_heads": {"idx": "deeper", "idx-1": "own"}[reference["up_heads"]],
        "fuse_up": reference["upFuse"],
        "attention_depth": reference["ftdepth"],
    }


def _dice(outputs: dict, target: dict) -> jax.Array:
    return soft_dice_loss(outputs["prob"], target["mask"])


def _dice_coef(outputs: dict, target: dict) -> jax.Array:
    return dice_coef_loss(outputs["prob"], target["mask"])


def _dice_and_tanh(outputs: dict, target: dict) -> jax.Array:
    mean_square = jnp.mean(jnp.square(outputs["tanh"] - target["tanh"]))
    return soft_dice_loss(outputs["prob"], target["mask"]) + 0.3 * mean_square


def _multitask(outputs: dict, target: dict, depth: int) -> jax.Array:
    targets = {"prob": target["mask"], "boundary": target["bound"], "distance": target["dist"]}
    losses = multitask_losses(outputs, targets, depth=depth)
    return sum(losses.values()) / len(losses)


LOSSES: Mapping[str, Callable[[dict, dict], jax.Array]] = {
    "dice_loss": _dice,
    "dice_coef_loss": _dice_coef,
    "dice_loss(sigmoid(logits)) + 0.3*mse(tanh)": _dice_and_tanh,
}


def _senformer(outputs: dict, target: dict) -> jax.Array:
    learners = [outputs[f"learner_{n}"] for n in range(4)]
    return senformer_loss(outputs["ensemble"], learners, target["mask"][..., 0])


def loss_of_reference(reference: Mapping) -> Callable[[dict, dict], jax.Array]:
    """The loss of a golden file, a function of outputs and targets."""
    if reference["loss"] == "mtsk":
        return functools.partial(_multitask, depth=reference["loss_depth"])
    if reference["loss"] == "senformer":
        return _senformer
    return LOSSES[reference["loss"]]


def _nhwc(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32).transpose(0, 2, 3, 1)


def _nchw(x: jax.Array) -> np.ndarray:
    return np.asarray(x).transpose(0, 3, 1, 2)


def _group(golden: Golden, group: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(group): golden[k] for k in golden if k.startswith(group)}


def _output_results(
    outputs: dict, golden: Golden, group: str, tolerance: Callable[[str, np.ndarray], float]
) -> Iterator[Result]:
    expected_outputs = _group(golden, group)
    if not expected_outputs:
        raise KeyError(f"{group}...")
    for name, expected in expected_outputs.items():
        # The reference predicts with the sum of four softmaxes.
        found = (
            outputs[OUTPUT_NAMES.get(name, name)]
            if name != "forward_test"
            else (4 * outputs["prob"])
        )
        yield compare(group + name, _nchw(found), expected, tolerance(name, expected))


def _gradient_results(
    grads: dict[str, np.ndarray],
    golden: Golden,
    norms: tuple[float, float] = tolerances.NORM_SHARES,
    entries: tuple[float, float] = tolerances.GRADIENT_SHARES,
) -> Iterator[Result]:
    whole = float(golden["f64/grad_norm"])
    grads = {name: np.asarray(g, np.float64) for name, g in grads.items()}
    norm = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
    yield compare("grad_norm", norm, whole, tolerances.share(norms, whole, whole))
    shares = []
    for name, expected in zip(golden["grad_l2/names"], golden["grad_l2/values"], strict=True):
        found = np.sqrt(np.square(grads[str(name)]).sum())
        shares.append(abs(found - expected) / tolerances.share(norms, expected, whole))
    yield worst(f"grad_l2, {len(shares)} tensors, share of tolerance", shares, 1.0)
    for group, corner in (("grad/", slice(None)), ("grad_slice/", slice(8))):
        for name, expected in _group(golden, group).items():
            found = grads[name]
            if group == "grad_slice/":
                found = found[corner, corner]
            tolerance = tolerances.share(entries, np.abs(expected).max(), whole)
            yield compare(group + name, found, expected, tolerance)


def _statistics_result(statistics: dict, golden: Golden, tolerance: float) -> Result | None:
    expected = _group(golden, "train_state/")
    if not expected and not statistics:
        return None
    errors = [compare(k, statistics[k], v, tolerance).error for k, v in expected.items()]
    return worst(f"train_state, {len(expected)} tensors", errors, tolerance)


def check_network(golden: Golden) -> Iterator[Result]:
    """Runs one golden network in eval mode, then one train-mode forward and backward pass."""
    reference = json.loads(str(golden["config"]))
    config = model_config(reference)
    loss_function = loss_of_reference(reference)
    model = registry.create_model(config)
    variables = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), torch_import.to_flax(config, golden_state(golden))
    )
    image = _nhwc(golden["input"])
    target = {name: _nhwc(value) for name, value in _group(golden, "target/").items()}

    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
    tolerance = functools.partial(_output_tolerance, reference, trained=False)
    yield from _output_results(outputs, golden, "output/", tolerance)

    loss, outputs, statistics, grads = _train_step(model, loss_function, variables, image, target)
    tolerance = functools.partial(_output_tolerance, reference, trained=True)
    yield from _output_results(outputs, golden, "train_output/", tolerance)
    yield compare("loss", loss, golden["f64/loss"], tolerances.LOSS)
    statistics = torch_import.to_torch(config, statistics)
    result = _statistics_result(statistics, golden, tolerances.statistics(reference))
    if result:
        yield result
    single = list(_gradient_results(torch_import.to_torch(config, grads), golden))
    if all(result.ok for result in single):
        yield from single
        return
    yield from (result.within(tolerances.TIES, "float32, ties") for result in single)
    with jax.enable_x64(True):
        # Its layers too: with activations of float32 it would decide ties as before.
        model = registry.create_model(config, dtype=jnp.float64)
        double = _train_step(model, loss_function, variables, image, target, jnp.float64)
        results = list(_double_results(config, golden, *double))
    yield from (result.within(1, "float64") for result in results)


def _output_tolerance(
    reference: Mapping, name: str, expected: np.ndarray, *, trained: bool
) -> float:
    return tolerances.output(name, reference, expected, trained=trained)


def _double_results(config, golden, loss, outputs, statistics, grads) -> Iterator[Result]:
    """The step in float64, where there is no rounding to excuse anything."""
    yield from _output_results(outputs, golden, "train_output/", _double_tolerance)
    yield compare("loss", loss, golden["f64/loss"], tolerances.DOUBLE)
    statistics = torch_import.to_torch(config, statistics)
    result = _statistics_result(statistics, golden, tolerances.DOUBLE)
    if result:
        yield result
    shares = tolerances.DOUBLE_SHARES
    yield from _gradient_results(torch_import.to_torch(config, grads), golden, shares, shares)


def _double_tolerance(name: str, expected: np.ndarray) -> float:
    """What is stored is rounded to float32, which is more where logits are large."""
    return max(tolerances.DOUBLE, float(np.finfo(np.float32).eps * np.abs(expected).max()))


def _train_step(
    model, loss_function: Callable, variables: dict, image, target: dict, dtype=jnp.float32
) -> tuple[jax.Array, dict, dict, dict]:
    """Loss, outputs, BatchNorm statistics and gradients of one training step in a precision."""
    variables, image, target = jax.tree.map(
        lambda x: jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        (variables, image, target),
    )

    def loss_of(params: dict) -> tuple[jax.Array, tuple[dict, dict]]:
        outputs, updated = model.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        return loss_function(outputs, target), (outputs, updated.get("batch_stats", {}))

    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, (outputs, statistics)), grads = step(variables["params"])
    return loss, outputs, statistics, grads
