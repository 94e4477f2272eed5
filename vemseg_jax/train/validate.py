"""Validation Dice and loss on held-out labelled slices, at training scale."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np

from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.data.store.volume import UNLABELLED
from vemseg_jax.eval.metrics import DiceAccumulator, count_slice
from vemseg_jax.infer import tiling
from vemseg_jax.infer.windows import plan_windows
from vemseg_jax.losses.dice import SMOOTH

# Half-overlapping windows: a quarter of the reference's work, enough to rank checkpoints.
STRIDE_SHARE = 2


@dataclasses.dataclass(frozen=True)
class Validation:
    """`dice` per structure, 3D over the held-out slices; `loss`, soft Dice over all of them."""

    dice: dict[str, float]
    loss: float


def _soft_sums(prob: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Per channel: sum of p t, and of p^2 + t^2, over labelled pixels. `[2, c]`"""
    target, valid = label == 1, label != UNLABELLED
    prob = np.where(valid, prob, 0)
    common = np.sum(prob, (0, 1), where=target, dtype=np.float64)
    total = np.sum(np.square(prob), (0, 1), dtype=np.float64) + target.sum((0, 1))
    return np.stack([common, total])


def make_validator(
    model_apply: Callable,
    slices: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]],
    structures: tuple[str, ...],
    *,
    size: tuple[int, int],
    crop_size: int,
    batch_size: int,
    normalization: Normalization,
    exclusive: bool,
) -> Callable[[dict], Validation]:
    """A function from variables to the scores over the held-out slices.

    Args:
      model_apply: the network's `apply`.
      slices: gives the held-out slices one by one, image `[h, w]` and labels `[h, w, c]`, those
        of 255 not counted; called for each validation, so that none has to stay in memory.
      structures: names of the label channels.
      size: `(h, w)` of the slices.
      crop_size: side of the windows.
      batch_size: windows per call.
      normalization: of the grey values.
      exclusive: whether the network's classes exclude each other, background first.
    """
    plan = plan_windows(size, kernel=crop_size, stride=crop_size // STRIDE_SHARE).over()
    batch_size = min(batch_size, len(plan.corners))
    run = jax.jit(lambda variables, x: model_apply(variables, x, train=False)["prob"])

    def validate(variables: dict) -> Validation:
        totals = {name: DiceAccumulator() for name in structures}
        soft = np.zeros((2, len(structures)))
        for plane, label in slices():
            mean = tiling.predict_planes(
                lambda x: run(variables, x),
                plane[None],
                plan=plan,
                batch_size=batch_size,
                normalization=normalization,
            )[0]
            mask = np.asarray(tiling.structure_masks(mean, exclusive=exclusive))
            prob = np.asarray(mean)
            soft += _soft_sums(prob[..., -len(structures) :], label)
            for channel, name in enumerate(structures):
                totals[name].add(count_slice(label[..., channel], mask[..., channel]))
        common, total = soft
        loss = float(np.mean(1 - (2 * common + SMOOTH) / (total + SMOOTH)))
        return Validation({name: total.dice_3d for name, total in totals.items()}, loss)

    return validate
