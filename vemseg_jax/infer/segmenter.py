"""Segmenting arrays in memory with a trained network."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vemseg_jax.checkpoint import FOLDER
from vemseg_jax.data.store.downsample import FACTOR
from vemseg_jax.data.store.volume import FULL
from vemseg_jax.errors import InputError
from vemseg_jax.infer.array_volume import (
    ArrayVolume,
    checked_stack,
    checked_voxel_size,
    is_large_enough,
)
from vemseg_jax.infer.block_prediction import (
    PIXEL_TOLERANCE,
    BlockPrediction,
    as_asked,
    pixels_fit,
    training_pixels,
)
from vemseg_jax.infer.decide import EXACT_PROBABILITY
from vemseg_jax.infer.grey_values import VOLUME
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.outputs import MASK, region_of
from vemseg_jax.infer.predictor import Method, Predictor, make_predictor
from vemseg_jax.infer.trained import Description, Trained, load_trained
from vemseg_jax.paths import local_path

_LOG = logging.getLogger(__name__)
_WARNING = "warning: "


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What a network found in a stack.

    Attributes:
      prob: structure -> probability, float32 in [0, 1], with the axes and the shape of the stack,
        `[z, y, x]` or `[y, x]`; empty where `probabilities=False` was given.
      masks: structure -> bool, likewise: where the structure is.
      notes: what was done to the stack and what is doubtful, a sentence each.
    """

    prob: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    notes: tuple[str, ...]


class Segmenter:
    """A trained network for arrays in memory. Made by `vemseg_jax.load`.

    Attributes:
      structures: what the network segments, such as ("nuclei",).
      description: of the network and its training.
      workdir: the folder of the run.
      step: of the checkpoint.
    """

    def __init__(self, trained: Trained):
        self._trained = trained
        self.description: Description = trained.description
        self.structures, self.workdir = trained.description.structures, trained.workdir
        self.step = trained.step
        # The last predictor, for the next stack: a new one would compile again.
        self._predictor: tuple[Any, Predictor] | None = None

    def __repr__(self) -> str:
        return f"Segmenter({str(self.workdir)!r}, structures={self.structures}, step={self.step})"

    def predict(
        self,
        stack: np.ndarray,
        *,
        voxel_size: Sequence[float],
        normalization: str = VOLUME,
        method: str = "window",
        overlap: float = Method.overlap,
        blending: str = Method.blending,
        flips: bool = False,
        batch_size: int = 8,
        probabilities: bool = True,
    ) -> Segmentation:
        """Segments a stack; the result is what `vemseg-predict --resolution=full` gives.

        The slices are shrunk to the scale of the training (by 4 or not at all, whichever gives the
        pixels that the network learned) and grey values are normalised, as those of a volume.

        Args:
          stack: `[z, y, x]`, or `[y, x]` for one slice, uint8 or uint16 grey values at full
            resolution.
          voxel_size: nm, (z, y, x); for one slice (y, x) will do.
          normalization: of grey values: by mean and deviation of this stack ("volume"), of the
            "training", or of each "slice". By default a darker stack is predicted alike, but a
            small piece of one may have other statistics than the whole: there "training" is right
            if the brightness is that of the training.
          method: "window", the sliding window, or "whole", one pass a slice, several times faster.
          overlap: share of a window that the next one covers.
          blending: how much the pixels of a window count, "uniform" or "gaussian".
          flips: average over each window and its mirror images.
          batch_size: windows per call of the network.
          probabilities: also return them; they take 4 bytes a voxel and structure.

        Raises:
          InputError: a stack of another type or number of dimensions, pixels that are not those of
            the training, options that do not fit.
        """
        options = PredictOptions(
            resolution=FULL,
            batch_size=batch_size,
            method=Method(method, overlap, blending, flips),
            normalization=normalization,
        )
        options.check()
        ndim = np.ndim(stack)
        volume, notes = self._as_volume(stack, voxel_size)
        prediction = BlockPrediction(
            volume,
            self._trained,
            options,
            quantities=(MASK, EXACT_PROBABILITY) if probabilities else (MASK,),
            make=self._predictor_for,
        )
        notes += prediction.grey_values.lines(what="stack", option="normalization")
        for note in notes:
            _LOG.log(logging.WARNING if note.startswith(_WARNING) else logging.INFO, "%s", note)
        prob, masks = (
            {name: array[0] if ndim == 2 else array for name, array in each.items()}
            for each in _predict_blocks(prediction, volume)
        )
        return Segmentation(prob, masks, tuple(notes))

    def _as_volume(
        self, stack: np.ndarray, voxel_size: Sequence[float]
    ) -> tuple[ArrayVolume, list[str]]:
        """The stack as a volume at the network's scale, and what is to be said of it."""
        images = checked_stack(stack)
        sizes = checked_voxel_size(voxel_size, ndim=np.ndim(stack))
        downsample = self._downsample(sizes)
        if not is_large_enough(images.shape, downsample):
            raise InputError(f"stack of shape {images.shape}: too small, no training pixel is left")
        volume = ArrayVolume(images, voxel_size=sizes, downsample=downsample)
        return volume, self._notes(volume)

    def _downsample(self, voxel_size: tuple[float, float, float]) -> int:
        """By how much slices are shrunk, so that pixels are those that the network learned."""
        description = self.description
        learned = training_pixels(description.voxel_size, description.downsample)
        # That of the training first, in case both would do.
        for downsample in sorted((1, FACTOR), key=lambda n: n != description.downsample):
            if pixels_fit(training_pixels(voxel_size, downsample), learned):
                return downsample
        y, x = learned
        raise InputError(
            f"voxel_size: pixels of {voxel_size[1]:g} x {voxel_size[2]:g} nm (y, x), but the"
            f" network of {self.workdir} learned pixels of {y:g} x {x:g} nm; rescale the stack so"
            f" that its pixels are {y / FACTOR:g} x {x / FACTOR:g} or {y:g} x {x:g} nm, within"
            f" {100 * PIXEL_TOLERANCE:.0f} %"
        )

    def _notes(self, volume: ArrayVolume) -> list[str]:
        notes, trained = [], self.description
        if volume.downsample != 1:
            notes.append(f"slices shrunk {volume.downsample} times to the scale of the training")
        if volume.dtype_max != trained.normalization.dtype_max:
            notes.append(
                f"grey values of {volume.dtype} are divided by {volume.dtype_max}; the training had"
                f" images of 0 to {trained.normalization.dtype_max}"
            )
        brightest = int(volume.planes["0"].max())
        if volume.dtype_max > 255 >= brightest:
            notes.append(
                f"{_WARNING}the stack is {volume.dtype}, but its largest grey value is {brightest};"
                " if it holds 8-bit images, give stack.astype(np.uint8)"
            )
        return notes

    def _predictor_for(self, trained: Trained, method: Method, **settings: Any) -> Predictor:
        """As `make_predictor`; the same one as for the last stack where nothing has changed."""
        key = (method, tuple(sorted(settings.items())))
        if self._predictor is None or self._predictor[0] != key:
            self._predictor = key, make_predictor(trained, method, **settings)
        return self._predictor[1]


def _predict_blocks(
    prediction: BlockPrediction, volume: ArrayVolume
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Probabilities, float32, where they are wanted, and masks, bool, `[z, y, x]` by structure."""
    structures = prediction.trained.description.structures
    exact = EXACT_PROBABILITY in prediction.quantities
    masks = {name: np.zeros(volume.shape, bool) for name in structures}
    prob = {name: np.zeros(volume.shape, np.float32) for name in structures if exact}
    path, pixels = next(iter(prediction.layout.planes)), volume.pixels(prediction.level)
    for block in prediction.grid:
        (y0, y1), (x0, x1) = prediction.plan(block).source
        z = slice(block.slices[0], block.slices[-1] + 1)
        results = prediction.predict(block, pixels[z, y0:y1, x0:x1])
        prediction.check_finite(block, results)
        (y0, y1), (x0, x1) = region_of(block, prediction.grid, prediction.layout, path)
        for into, quantity in ((masks, MASK), (prob, EXACT_PROBABILITY)):
            for channel, array in enumerate(into.values()):
                array[z, y0:y1, x0:x1] = np.asarray(results[quantity][..., channel])
    return prob, masks


def load_segmenter(
    workdir: str | os.PathLike[str],
    *,
    which: str | None = None,
    prediction: str | None = None,
    precision: str | None = None,
) -> Segmenter:
    """Opens a trained run for arrays in memory.

    Args:
      workdir: the folder of the run; `~` is the home folder.
      which: its checkpoint, "best" or "latest"; None for the best, or the latest if none was
        scored.
      prediction: of two networks that taught each other: "first", "second" or "mean"; None as the
        run was configured.
      precision: type of activations and products: "float32", "bfloat16" or "float16"; None that of
        the training.

    Raises:
      InputError: no such folder, no run in it, or one that cannot be read.
    """
    path = local_path(workdir)
    if not (path / FOLDER).is_dir():
        raise InputError(f"{path}: {_no_run(path)}")
    options = PredictOptions(prediction=prediction, precision=precision)
    options.check()
    return Segmenter(as_asked(load_trained(path, which), options))


def _no_run(path: Path) -> str:
    if not path.exists():
        return "no such folder; give the folder of a run, the --workdir of vemseg-train"
    if not path.is_dir():
        return "a file; give the folder of a run, the --workdir of vemseg-train"
    inside = sorted(each.name for each in path.iterdir() if (each / FOLDER).is_dir())
    if inside:
        return f"not a run, but a folder of runs; give one of them: {', '.join(inside)}"
    return "holds no checkpoints; give the folder of a run, the --workdir of vemseg-train"
