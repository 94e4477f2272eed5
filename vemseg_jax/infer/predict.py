"""Segments the slices of a volume with a trained network."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vemseg_jax.data.label_writer import create_label
from vemseg_jax.data.preprocessing import downsample_mask
from vemseg_jax.data.slices import read_slices
from vemseg_jax.data.volume import FULL, TRAINING, Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import tiling
from vemseg_jax.infer.trained import Description, Trained, load_trained, prediction_apply
from vemseg_jax.models.registry import create_model, is_exclusive, model_name
from vemseg_jax.progress import track

PIXEL_TOLERANCE = 0.2
SUFFIX = "_pred"


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
      resolution: "training", or "full" for full resolution (with the training scale made from
        it by the rule for labels).
      batch_size: windows per call of the network.
      suffix: added to a structure's name for the result.
      overwrite: replace an existing result.
      prediction: of two networks: "first", "second" or "mean"; None as they were trained for.
    """

    resolution: str = TRAINING
    batch_size: int = 8
    suffix: str = SUFFIX
    overwrite: bool = False
    prediction: str | None = None


def check_volume(volume: Volume, description: Description) -> None:
    """Refuses a volume whose pixels at training scale are not those the network learned."""
    found = [size * volume.downsample for size in volume.voxel_size[1:]]
    learned = [size * description.downsample for size in description.voxel_size[1:]]
    if any(abs(a - b) > PIXEL_TOLERANCE * b for a, b in zip(found, learned, strict=True)):
        raise InputError(
            f"{volume.path} has training-scale pixels of {found[0]:g} x {found[1]:g} nm "
            f"(downsample {volume.downsample}), but the network learned pixels of "
            f"{learned[0]:g} x {learned[1]:g} nm; convert with a --voxel_size and --downsample "
            f"that bring them within {100 * PIXEL_TOLERANCE:.0f} %"
        )


def plane_predictor(
    trained: Trained, *, shape: tuple[int, int], scale: int, dtype_max: int, batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a raw slice `[h, w]` to probabilities `[h, w, c]`.

    Args:
      trained: network and description.
      shape: (h, w) of the slices.
      scale: the slices' pixels per network pixel: 1 at training scale, or the network's
        `downsample` at full resolution.
      dtype_max: the largest grey value of the slices' type.
      batch_size: windows per call.
    """
    description = trained.description
    kernel = description.crop_size * scale
    plan = tiling.plan_windows(shape, kernel=kernel, stride=kernel // tiling.STRIDE_SHARE)
    model = create_model(description.model, dtype=description.precision)
    forward = tiling.make_forward(
        prediction_apply(model, description), trained.variables, input_size=description.crop_size
    )
    batch_size = min(batch_size, len(plan.corners))
    normalization = dataclasses.replace(description.normalization, dtype_max=dtype_max)

    def predict(plane: np.ndarray) -> np.ndarray:
        image = normalization(plane.astype(np.float32))
        return tiling.predict_plane(forward, image, plan=plan, batch_size=batch_size)

    return predict


def _predicting(trained: Trained, prediction: str | None) -> Trained:
    """The pair with another choice of what it predicts, where one was made."""
    if prediction is None:
        return trained
    if trained.description.networks == 1:
        raise InputError(
            f"--prediction={prediction} chooses between two networks, but {trained.workdir} "
            "trained one; leave it out"
        )
    description = dataclasses.replace(trained.description, prediction=prediction)
    return dataclasses.replace(trained, description=description)


def _attributes(trained: Trained, volume: Volume, structure: str, slices: Sequence[int]) -> dict:
    description = trained.description
    # Slice numbers of another volume mean nothing here.
    same = description.fingerprint == volume.fingerprint
    return {
        "structure": structure,
        "labelled_slices": list(slices),
        "training_slices": list(description.train_slices) if same else [],
        "validation_slices": list(description.val_slices) if same else [],
        "training_volume": description.volume,
        "model": model_name(description.model),
        "prediction": description.prediction if description.networks == 2 else "single",
        "checkpoint": f"{trained.workdir} {trained.which} step {trained.step}",
        "window": description.crop_size,
        "stride": description.crop_size // tiling.STRIDE_SHARE,
    }


def _chosen(volume: Volume, slices: Sequence[int]) -> list[int]:
    depth = volume.shape[0]
    if outside := [z for z in slices if not 0 <= z < depth]:
        raise InputError(f"--slices names {outside}; {volume.path} has slices 0 to {depth - 1}")
    return sorted(set(slices)) if slices else list(range(depth))


def predict_volume(
    volume_path: Path,
    workdir: Path,
    *,
    which: str | None = None,
    slices: Sequence[int] = (),
    options: PredictOptions = PredictOptions(),
) -> list[str]:
    """Segments slices and stores each structure as a label image of the volume.

    Slices pass through the reference's sliding window (windows of the training crop, at a
    quarter of its size, averaged uniformly, `> 0.5`), streamed: a few are in memory at a time.
    A run that dies leaves no label behind.

    Args:
      volume_path: a converted volume.
      workdir: the folder of a training run.
      which: its "best" or "latest" checkpoint; None takes the best if there is one.
      slices: z to predict; empty for all.
      options: see `PredictOptions`.

    Returns:
      The names of the label images written, such as `nuclei_pred`.

    Raises:
      InputError: anything that does not fit; see the message.
    """
    volume = open_volume(volume_path)
    trained = _predicting(load_trained(workdir, which), options.prediction)
    check_volume(volume, trained.description)
    chosen = _chosen(volume, slices)
    full = options.resolution == FULL and volume.downsample != 1
    level = FULL if full else TRAINING
    predict = plane_predictor(
        trained,
        shape=volume.plane_shape(level),
        scale=volume.downsample if full else 1,
        dtype_max=volume.dtype_max,
        batch_size=options.batch_size,
    )
    structures = trained.description.structures
    exclusive = is_exclusive(trained.description.model)
    names = [structure + options.suffix for structure in structures]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                create_label(
                    volume,
                    name,
                    levels=(FULL, TRAINING) if full else (TRAINING,),
                    kind="prediction",
                    attributes=_attributes(trained, volume, structure, chosen),
                    overwrite=options.overwrite,
                )
            )
            for name, structure in zip(names, structures, strict=True)
        ]
        planes = read_slices([volume.image(level)], chosen)
        for z, (plane,) in track(planes, total=len(chosen), what="predicting", unit="slice"):
            mask = tiling.structure_masks(predict(plane), exclusive=exclusive)
            for channel, writer in enumerate(writers):
                writer.write(z, level, mask[..., channel])
                if full:
                    writer.write(z, TRAINING, downsample_mask(mask[..., channel]))
    return names
