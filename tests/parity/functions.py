"""Golden functions: losses, resizing, pairing, normalisation, windows, Dice, schedules."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.result import Result, compare
from tests.parity.weights import golden_state
from vemseg_jax.data.augment import flip_turn
from vemseg_jax.data.normalization import combine, slice_statistics
from vemseg_jax.data.pairing import match_by_trailing_number
from vemseg_jax.data.preprocessing import downsample_image, downsample_mask
from vemseg_jax.data.targets import boundary_target, distance_target
from vemseg_jax.eval.metrics import stack_dice
from vemseg_jax.infer import tiling, windows
from vemseg_jax.losses.dice import dice_coef_loss, hard_dice, soft_dice_loss
from vemseg_jax.models import registry, torch_import
from vemseg_jax.resize import resize_bilinear
from vemseg_jax.train import schedules

Golden = Mapping[str, np.ndarray]


def _cases(golden: Golden, key: str) -> list[str]:
    return [k.removesuffix("/" + key) for k in golden if k.endswith("/" + key)]


def check_dice_losses(golden: Golden) -> Iterator[Result]:
    """Soft Dice losses, their gradients, and hard Dice on ordinary and degenerate batches."""
    for case in _cases(golden, "dice_coef_loss"):
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
            loss, grad = jax.value_and_grad(function)(score, target)
            yield compare(f"{case}/{name}", loss, golden[f"{case}/{name}"], 1e-6)
            expected = golden[f"{case}/{name}_grad"]
            grad = np.asarray(grad).transpose(0, 3, 1, 2)
            grad = grad.reshape(expected.shape) if grad.size == expected.size else grad
            # A perfect prediction cancels terms of 1e-3: what is left is rounding.
            tolerance = 1e-5 * np.abs(expected).max() + 2e-10
            yield compare(f"{case}/{name}_grad", grad, expected, tolerance)
        hard = hard_dice(score > 0.5, target)
        for name in ("metrics_dice_of_thresholded", "dice_coeff_of_thresholded"):
            if f"{case}/{name}" in golden:
                yield compare(f"{case}/{name}", hard, golden[f"{case}/{name}"], 1e-6)


def _resize_nchw(x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    x = jnp.asarray(x, jnp.float32)[..., None]
    return np.asarray(resize_bilinear(x, shape))[..., 0]


def check_downsample(golden: Golden) -> Iterator[Result]:
    """4x bilinear shrinking of images and masks; other factors; back up."""
    image, small = golden["image_uint8"], golden["image_down"]
    yield compare("image_down", _resize_nchw(image / 255, small.shape[-2:]), small, 1e-6)
    rounded = downsample_image(image) / 255
    yield compare("training scale (rounded to 8 bits)", rounded, small, 0.5 / 255 + 1e-6)
    others = [key for key in golden if key.startswith(("image_down_to_", "image_up_from_"))]
    for key in others:
        expected = golden[key]
        source = image / 255 if key.startswith("image_down_to_") else small[: len(expected)]
        yield compare(key, _resize_nchw(source, expected.shape[-2:]), expected, 1e-6)
    for key in ("mask01", "mask0255"):
        soft = _resize_nchw(golden[key], golden[f"{key}_down"].shape[-2:]).squeeze(1)
        yield compare(f"{key}_down_soft", soft, golden[f"{key}_down_soft"], 1e-6 * 255)
        yield compare(f"{key}_down", soft > 0.5, golden[f"{key}_down"], 0)
    mask = downsample_mask(golden["mask01"]).squeeze(1)
    yield compare("training scale mask", mask, golden["mask01_down"], 0)


def check_dataset_item(golden: Golden) -> Iterator[Result]:
    """Pairing by trailing number, normalisation, crops, flips."""
    labeled, unlabeled = match_by_trailing_number(
        [str(n) for n in golden["match/images"]], [str(n) for n in golden["match/targets"]]
    )
    yield compare("match/labeled", labeled, golden["match/labeled"], 0)
    yield compare("match/unlabeled", unlabeled, golden["match/unlabeled"], 0)
    statistics = [slice_statistics(golden[k]) for k in ("image", "image2")]
    norm = combine(*zip(*statistics, strict=True), dtype_max=255)
    yield compare("norm_mean_std", [norm.mean, norm.std], golden["f64/norm_mean_std"], 1e-7)
    for case in _cases(golden, "crop_i_j_hflip_vflip"):
        i, j, left_right, up_down = (int(v) for v in golden[f"{case}/crop_i_j_hflip_vflip"])
        expected = golden[f"{case}/image"]
        code = jnp.asarray([left_right + 2 * up_down])
        size = 4 * expected.shape[-1]

        def crop(plane, i=i, j=j, size=size, code=code):
            small = resize_bilinear(
                jnp.asarray(plane[i : i + size, j : j + size, None], jnp.float32),
                (size // 4, size // 4),
            )
            return np.asarray(flip_turn(small[None], code))[..., 0]

        yield compare(f"{case}/image", norm(crop(golden["image"])), expected, 2e-6)
        mask = crop(golden["mask"]) > 0.5
        yield compare(f"{case}/mask", mask, golden[f"{case}/mask"], 0)
        for name, target in (("boundary", boundary_target), ("distance", distance_target)):
            found = np.asarray(target(jnp.asarray(mask)[..., None]))[..., 0]
            yield compare(f"{case}/{name}", found, golden[f"{case}/{name}"], 1e-6)


def _window_network(golden: Golden, classes: int, scale: int):
    for prefix in ("net1/", "net2/"):
        state = golden_state(golden, prefix)
        if len(state["outc.conv.bias"]) == classes:
            break
    base = state["inc.double_conv.0.weight"].shape[0]
    config = registry.model_config("small_unet", base_channels=base, num_classes=classes)
    model = registry.create_model(config)
    variables = torch_import.to_flax(config, state)
    return tiling.make_forward(model.apply, variables, scale=scale)


def check_sliding_window(golden: Golden) -> Iterator[Result]:
    """Padding, windows, averaged probability and mask of the sliding window."""
    for case in _cases(golden, "averaged_prob"):
        downsize, crop, size, batch, classes = (
            int(v) for v in golden[f"{case}/config_downsize_dimcrop_diminput_batch_nclasses"]
        )
        kernel = crop if downsize else size
        image = golden[f"{case}/input"][0, 0]
        stride = kernel // windows.STRIDE_SHARE
        plan = windows.plan_windows(image.shape, kernel=kernel, stride=stride).over()
        yield compare(f"{case}/padded_hw", plan.shape, golden[f"{case}/padded_hw"], 0)
        yield compare(
            f"{case}/pad_h_w", [sum(pad) for pad in plan.padding], golden[f"{case}/pad_h_w"], 0
        )
        yield compare(f"{case}/n_patches", len(plan.corners), golden[f"{case}/n_patches"], 0)
        yield compare(f"{case}/counter", plan.total, golden[f"{case}/counter"], 0)
        scale = kernel // size
        forward = _window_network(golden, classes, scale)
        prob = tiling.predict_planes(
            forward, image[None], plan=plan, batch_size=batch, scale=scale
        )[0]
        expected = golden[f"{case}/averaged_prob"]
        yield compare(f"{case}/averaged_prob", prob.transpose(2, 0, 1)[None], expected, 2e-5)
        mask = tiling.to_mask(prob, exclusive=classes > 1)
        mask = mask[None] if classes > 1 else mask.transpose(2, 0, 1)[None]
        yield compare(f"{case}/mask_shape", mask.shape, golden[f"{case}/mask_shape"], 0)
        if classes > 1:
            top = np.sort(expected, axis=1)
            undecided = top[:, -1] - top[:, -2] < 4e-5
        else:
            undecided = np.abs(expected - 0.5) < 2e-5
        found = np.where(undecided, golden[f"{case}/mask"], mask)
        yield compare(f"{case}/mask", found, golden[f"{case}/mask"], 0)


def check_stack_dice(golden: Golden) -> Iterator[Result]:
    """2D and 3D Dice of a stack."""
    found = stack_dice(golden["gt"], golden["pred"])
    yield compare("every_dice", found.every_dice, golden["every_dice"], 1e-6)
    yield compare("avg_dice_2d", found.average_dice_2d, golden["avg_dice_2d"], 1e-6)
    yield compare("dice_3d", found.dice_3d_structure_slices, golden["f64/dice_3d"], 1e-6)
    whole = golden["dice_3d_if_all_slices_counted"]
    yield compare("dice_3d_if_all_slices_counted", found.dice_3d, whole, 1e-6)
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
        yield compare(key, ramp, golden[key], 1e-12)
    key = "schedule/lambda_senformer_dice_variant"
    if key in golden:
        ramp = schedules.consistency_ramp(golden["schedule/epoch"], first=0.01)
        yield compare(key, ramp, golden[key], 1e-12)
    for case in [k.removesuffix("_base_max") for k in golden if k.endswith("_base_max")]:
        base, most = (float(v) for v in golden[f"{case}_base_max"])
        rate = schedules.reference_rate(golden[f"{case}_iter"], base=base, max_iterations=int(most))
        yield compare(f"{case}_lr", rate, golden[f"{case}_lr"], 1e-12 * base)
        used = schedules.reference_schedule(base=base, max_iterations=int(most))
        expected = golden[f"{case}_lr_used_first6steps"]
        found = [used(jnp.asarray(step)) for step in range(len(expected))]
        yield compare(f"{case}_lr_used_first6steps", found, expected, 1e-6 * base)
