"""Validation Dice on held-out labelled slices, at training scale."""

from collections.abc import Callable

import jax
import numpy as np

from vemseg_jax.data.input_pipeline import Planes
from vemseg_jax.data.normalization import Normalization
from vemseg_jax.eval.metrics import DiceAccumulator, count_slice
from vemseg_jax.infer import tiling

# Half-overlapping windows: a quarter of the reference's work, enough to rank checkpoints.
STRIDE_SHARE = 2


def make_validator(
    model_apply: Callable,
    planes: Planes,
    structures: tuple[str, ...],
    *,
    crop_size: int,
    batch_size: int,
    normalization: Normalization,
) -> Callable[[dict], dict[str, float]]:
    """A function from variables to the 3D Dice of each structure over the held-out slices.

    Args:
      model_apply: the network's `apply`.
      planes: the held-out slices, numpy arrays; labels of 255 do not count.
      structures: names of the label channels.
      crop_size: side of the windows.
      batch_size: windows per call.
      normalization: of the grey values.
    """
    plan = tiling.plan_windows(
        planes.image.shape[1:3], kernel=crop_size, stride=crop_size // STRIDE_SHARE
    )
    images = [normalization(plane.astype(np.float32)) for plane in planes.image]
    batch_size = min(batch_size, len(plan.corners))
    run = jax.jit(lambda variables, x: model_apply(variables, x, train=False)["prob"])

    def validate(variables: dict) -> dict[str, float]:
        totals = {name: DiceAccumulator() for name in structures}
        for image, label in zip(images, planes.label, strict=True):
            prob = tiling.predict_plane(
                lambda x: run(variables, x), image, plan=plan, batch_size=batch_size
            )
            mask = tiling.to_mask(prob)
            for channel, name in enumerate(structures):
                totals[name].add(count_slice(label[..., channel], mask[..., channel]))
        return {name: total.dice_3d for name, total in totals.items()}

    return validate
