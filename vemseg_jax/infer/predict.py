"""Segments the slices of a volume with a trained network."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from vemseg_jax.data.label_writer import LabelWriter, create_label
from vemseg_jax.data.slices import read_slices
from vemseg_jax.data.volume import FULL, TRAINING, Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import tiling
from vemseg_jax.infer.predictor import WINDOW, Method, describe, enlarge, make_predictor
from vemseg_jax.infer.trained import Description, Trained, load_trained
from vemseg_jax.models.registry import is_exclusive, model_name
from vemseg_jax.progress import track

PIXEL_TOLERANCE = 0.2
SUFFIX = "_pred"
# Slices that are predicted together hold about so many pixels.
BLOCK_PIXELS = 2**21
# Slices of masks that wait to be written.
MOST_WAITING = 8


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
      method: how slices pass through the network.
    """

    resolution: str = TRAINING
    batch_size: int = 8
    suffix: str = SUFFIX
    overwrite: bool = False
    prediction: str | None = None
    method: Method = dataclasses.field(default_factory=Method)


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


def _attributes(
    trained: Trained, volume: Volume, structure: str, slices: Sequence[int], method: Method
) -> dict:
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
        "method": describe(method, trained),
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

    Slices pass through the network by `options.method`, a few at a time, and pixels whose mean
    probability is `> 0.5` are the structure. A run that dies leaves no label behind.

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
    options.method.check()
    volume = open_volume(volume_path)
    trained = _predicting(load_trained(workdir, which), options.prediction)
    check_volume(volume, trained.description)
    chosen = _chosen(volume, slices)
    full = options.resolution == FULL and volume.downsample != 1
    # The reference's windows are cut at full resolution; whole slices pass at training scale.
    level = FULL if full and options.method.name == WINDOW else TRAINING
    predict = make_predictor(
        trained,
        options.method,
        shape=volume.plane_shape(level),
        scale=volume.downsample if level == FULL else 1,
        dtype_max=volume.dtype_max,
        batch_size=options.batch_size,
    )
    print(f"method      {describe(options.method, trained)}")

    @jax.jit
    def decide(prob: jax.Array) -> jax.Array:
        if full and level == TRAINING:
            prob = enlarge(prob, volume.shape[1:])
        return tiling.structure_masks(prob, exclusive=exclusive)

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
                    attributes=_attributes(trained, volume, structure, chosen, options.method),
                    overwrite=options.overwrite,
                )
            )
            for name, structure in zip(names, structures, strict=True)
        ]
        blocks = _blocks(volume, level, chosen)
        with ThreadPoolExecutor(len(writers)) as pool:
            written: deque[Future] = deque()
            for z, mask in track(
                _masks(blocks, lambda planes: decide(predict(planes))),
                total=len(chosen),
                what="predicting",
                unit="slice",
            ):
                written += [
                    pool.submit(_write, writer, z, mask[..., channel], full=full)
                    for channel, writer in enumerate(writers)
                ]
                while len(written) > MOST_WAITING:
                    written.popleft().result()
            for future in written:
                future.result()
    return names


def _blocks(
    volume: Volume, level: str, slices: Sequence[int]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Slices read ahead, some at a time: `z` and `[s, h, w]`."""
    h, w = volume.plane_shape(level)
    size = max(1, BLOCK_PIXELS // (h * w))
    zs: list[int] = []
    planes: list[np.ndarray] = []
    for z, (plane,) in read_slices([volume.image(level)], slices):
        zs.append(z)
        planes.append(plane)
        if len(zs) == size:
            yield zs, np.stack(planes)
            zs, planes = [], []
    if zs:
        yield zs, np.stack(planes)


def _masks(
    blocks: Iterable[tuple[list[int], np.ndarray]], run: Callable[[np.ndarray], jax.Array]
) -> Iterator[tuple[int, np.ndarray]]:
    """Masks slice by slice, `[h, w, structures]`; the next block runs while one is taken over."""
    waiting: deque[tuple[list[int], jax.Array]] = deque()
    for zs, planes in blocks:
        waiting.append((zs, run(planes)))
        if len(waiting) > 1:
            yield from zip(*_fetched(waiting.popleft()), strict=True)
    for block in waiting:
        yield from zip(*_fetched(block), strict=True)


def _fetched(block: tuple[list[int], jax.Array]) -> tuple[list[int], np.ndarray]:
    return block[0], np.asarray(block[1])


def _write(writer: LabelWriter, z: int, mask: np.ndarray, *, full: bool) -> None:
    if full:
        writer.write_mask(z, mask)
    else:
        writer.write(z, TRAINING, mask)
