"""Golden functions: Dice losses, resizing, windows, Dice of stacks, schedules."""

import re
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, cases, compare
from tests.parity.weights import golden_state, small_unet_config
from vemseg_jax.data.store.downsample import downsample_image, downsample_mask
from vemseg_jax.eval.metrics import stack_dice
from vemseg_jax.infer import tiling, windows
from vemseg_jax.losses.dice import dice_coef_loss, hard_dice, soft_dice_loss
from vemseg_jax.models import registry, torch_import
from vemseg_jax.resize import resize_bilinear
from vemseg_jax.train import schedules

Golden = Mapping[str, np.ndarray]


def check_dice_losses(golden: Golden) -> Iterator[Result]:
    """Soft Dice losses, their gradients, and hard Dice on ordinary and degenerate batches."""
    for case in cases(golden, "dice_coef_loss"):
        score = jnp.asarray(golden[f"{case}/score"]).transpose(0, 2, 3, 1)
        target = jnp.asarray(golden[f"{case}/target"]).transpose(0, 2, 3, 1)
        functions = {
            "dice_loss": soft_dice_loss,
            "dice_loss_bool3d": lambda p, t: soft_dice_loss(p, t == 1),
            "dice_coef_loss": dice_coef_loss,
        }
        for name, function in functions.items():
            if f"{case}/{name}" not in golden:
                continue
            loss, grad = jax.jit(jax.value_and_grad(function))(score, target)
            yield compare(f"{case}/{name}", loss, golden[f"{case}/{name}"], tolerances.LOSS)
            expected = golden[f"{case}/{name}_grad"]
            grad = np.asarray(grad).transpose(0, 3, 1, 2)
            grad = grad.reshape(expected.shape) if grad.size == expected.size else grad
            tolerance = tolerances.LOSS_GRADIENT_SHARE * np.abs(expected).max()
            tolerance += tolerances.LOSS_GRADIENT_FLOOR
            yield compare(f"{case}/{name}_grad", grad, expected, tolerance)
        hard = hard_dice(score > 0.5, target)
        for name in ("metrics_dice_of_thresholded", "dice_coeff_of_thresholded"):
            if f"{case}/{name}" in golden:
                yield compare(f"{case}/{name}", hard, golden[f"{case}/{name}"], tolerances.LOSS)


def _resize_nchw(x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    x = jnp.asarray(x, jnp.float32)[..., None]
    return np.asarray(resize_bilinear(x, shape))[..., 0]


def check_downsample(golden: Golden) -> Iterator[Result]:
    """Bilinear shrinking of images and masks by any factor; back up; the training scale's own."""
    image, small = golden["image_uint8"], golden["image_down"]
    most = np.iinfo(image.dtype).max
    yield compare(
        "image_down", _resize_nchw(image / most, small.shape[-2:]), small, tolerances.RESIZED
    )
    if _is_training_scale(image, small):
        rounded = downsample_image(image) / most
        tolerance = 0.5 / most + tolerances.RESIZED
        yield compare("training scale (rounded to 8 bits)", rounded, small, tolerance)
    for key in (k for k in golden if k.startswith(("image_down_to_", "image_up_from_"))):
        expected = golden[key]
        source = image / most if key.startswith("image_down") else _small(golden, key)
        found = _resize_nchw(source[: len(expected)], expected.shape[-2:])
        yield compare(key, found, expected, tolerances.RESIZED)
    for key in [k.removesuffix("_down") for k in golden if re.fullmatch(r"mask.*_down", k)]:
        mask, expected = golden[key], golden[f"{key}_down"]
        soft = _resize_nchw(mask, expected.shape[-2:]).reshape(expected.shape)
        if f"{key}_down_soft" in golden:
            tolerance = tolerances.RESIZED * max(1, mask.max())
            yield compare(f"{key}_down_soft", soft, golden[f"{key}_down_soft"], tolerance)
        yield compare(f"{key}_down", soft > 0.5, expected, 0)
        if mask.max() <= 1 and _is_training_scale(mask, expected):
            found = downsample_mask(mask).reshape(expected.shape)
            yield compare(f"training scale {key}", found, expected, 0)


def _is_training_scale(large: np.ndarray, small: np.ndarray) -> bool:
    return all(n == 4 * m for n, m in zip(large.shape[-2:], small.shape[-2:], strict=True))


def _small(golden: Golden, key: str) -> np.ndarray:
    """What `image_up_from_down` or `image_up_from_50` is enlarged from."""
    name = key.removeprefix("image_up_from_")
    return golden["image_down" if name == "down" else f"image_down_to_{name}"]


def _window_network(golden: Golden, classes: int, scale: int):
    prefixes = sorted({match[0] for key in golden if (match := re.match(r"net\d*/", key))})
    states = [golden_state(golden, prefix) for prefix in prefixes]
    fitting = [state for state in states if len(state["outc.conv.bias"]) == classes]
    if not fitting:
        raise KeyError(f"no network of {classes} classes among {', '.join(prefixes)}")
    config = small_unet_config(fitting[0])
    model = registry.create_model(config)
    variables = torch_import.to_flax(config, fitting[0])
    return tiling.make_forward(model.apply, variables, scale=scale)


def check_sliding_window(golden: Golden) -> Iterator[Result]:
    """Padding, windows, averaged probability and mask of the sliding window."""
    for case in cases(golden, "averaged_prob"):
        downsize, crop, size, batch, classes = (
            int(v) for v in golden[f"{case}/config_downsize_dimcrop_diminput_batch_nclasses"]
        )
        kernel = crop if downsize else size
        (image,) = golden[f"{case}/input"][:, 0]  # one grey slice
        stride = kernel // windows.STRIDE_SHARE
        plan = windows.plan_windows(image.shape, kernel=kernel, stride=stride).over()
        yield compare(f"{case}/padded_hw", plan.shape, golden[f"{case}/padded_hw"], 0)
        yield compare(
            f"{case}/pad_h_w", [sum(pad) for pad in plan.padding], golden[f"{case}/pad_h_w"], 0
        )
        yield compare(f"{case}/n_patches", len(plan.corners), golden[f"{case}/n_patches"], 0)
        yield compare(f"{case}/counter", plan.total, golden[f"{case}/counter"], 0)
        scale, rest = divmod(kernel, size)
        if rest:
            raise KeyError(f"{case}: crops of {kernel} are no whole multiple of {size}")
        forward = _window_network(golden, classes, scale)
        prob = tiling.predict_planes(
            forward, image[None], plan=plan, batch_size=batch, scale=scale
        )[0]
        expected = golden[f"{case}/averaged_prob"]
        found = prob.transpose(2, 0, 1)[None]
        yield compare(f"{case}/averaged_prob", found, expected, tolerances.PROBABILITY)
        mask = tiling.to_mask(prob, exclusive=classes > 1)
        mask = mask[None] if classes > 1 else mask.transpose(2, 0, 1)[None]
        yield compare(f"{case}/mask_shape", mask.shape, golden[f"{case}/mask_shape"], 0)
        if classes > 1:
            top = np.sort(expected, axis=1)
            undecided = top[:, -1] - top[:, -2] < 2 * tolerances.PROBABILITY
        else:
            undecided = np.abs(expected - 0.5) < tolerances.PROBABILITY
        found = np.where(undecided, golden[f"{case}/mask"], mask)
        yield compare(f"{case}/mask", found, golden[f"{case}/mask"], 0)


def check_stack_dice(golden: Golden) -> Iterator[Result]:
    """2D and 3D Dice of a stack."""
    found = stack_dice(golden["gt"], golden["pred"])
    yield compare("every_dice", found.every_dice, golden["every_dice"], tolerances.DICE)
    yield compare("avg_dice_2d", found.average_dice_2d, golden["avg_dice_2d"], tolerances.DICE)
    yield compare("dice_3d", found.dice_3d_structure_slices, golden["f64/dice_3d"], tolerances.DICE)
    whole = golden["dice_3d_if_all_slices_counted"]
    yield compare("dice_3d_if_all_slices_counted", found.dice_3d, whole, tolerances.DICE)
    totals = golden["pixels_gt_pred_common"]
    yield compare("pixels_gt_pred_common", found.structure_totals, totals, 0)
    yield compare("empty_slices", len(found.empty_slices), golden["empty_slices"], 0)


def check_schedules(golden: Golden) -> Iterator[Result]:
    """Polynomial learning rate and the ramp of the consistency weight."""
    head = "schedule/lambda_cpsweight_"
    for key in (k for k in golden if k.startswith(head)):
        ramp = schedules.consistency_ramp(
            golden["schedule/epoch"], weight=float(key.removeprefix(head))
        )
        yield compare(key, ramp, golden[key], tolerances.SCHEDULE)
    key = "schedule/lambda_senformer_dice_variant"
    if key in golden:
        ramp = schedules.consistency_ramp(golden["schedule/epoch"], first=0.01)
        yield compare(key, ramp, golden[key], tolerances.SCHEDULE)
    for case in [k.removesuffix("_base_max") for k in golden if k.endswith("_base_max")]:
        base, most = (float(v) for v in golden[f"{case}_base_max"])
        rate = schedules.reference_rate(golden[f"{case}_iter"], base=base, max_iterations=int(most))
        yield compare(f"{case}_lr", rate, golden[f"{case}_lr"], tolerances.SCHEDULE * base)
        used = schedules.reference_schedule(base=base, max_iterations=int(most))
        expected = golden[f"{case}_lr_used_first6steps"]
        found = [used(jnp.asarray(step)) for step in range(len(expected))]
        yield compare(
            f"{case}_lr_used_first6steps", found, expected, tolerances.SCHEDULE_FLOAT32 * base
        )
