"""The functions of `import vemseg_jax as vs`: what the commands do, called from Python.

Each calls the library function that the command of its name calls, with the same defaults; flags
are keyword arguments. Paths may be `str` or `Path`, and `~` is the home folder. What cannot be used
raises `InputError`, a ValueError, whose text names the flag of the command where it means an
argument.

Importing this module imports neither jax nor anything else that takes time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vemseg_jax.api_convert import StrPath, convert
from vemseg_jax.errors import check_choice
from vemseg_jax.paths import local_path

if TYPE_CHECKING:
    from vemseg_jax.config import ExperimentConfig
    from vemseg_jax.data.store.volume import Volume
    from vemseg_jax.eval.evaluate import Evaluation
    from vemseg_jax.infer.predict import Result
    from vemseg_jax.infer.segmenter import Segmenter
    from vemseg_jax.measure.measure import Measurement

__all__ = ["convert", "evaluate", "load", "measure", "open_volume", "predict", "train"]

LEVELS = (None, "training", "full")


def open_volume(path: StrPath) -> "Volume":
    """Opens a converted volume for reading.

    `volume.image("full")` and `volume.label("nuclei", "training")` are tensorstore arrays
    `[z, y, x]`: `volume.image("full")[10].read().result()` is slice 10 as numpy.

    Raises:
      InputError: it is missing, not a volume of this package, or its conversion did not finish.
    """
    from vemseg_jax.data.store.volume import open_volume as open_

    return open_(path)


def load(
    run: StrPath,
    *,
    which: str | None = None,
    prediction: str | None = None,
    precision: str | None = None,
) -> "Segmenter":
    """Opens a trained run, to segment arrays in memory with `Segmenter.predict`.

    Args:
      run: the folder of the run, the `workdir` of its training.
      which: its checkpoint, "best" or "latest"; None for the best, or the latest if none was
        scored.
      prediction: of two networks that taught each other: "first", "second" or "mean"; None as the
        run was configured.
      precision: type of activations and products, "float32", "bfloat16" or "float16"; None that of
        the training.

    Raises:
      InputError: no such folder, no run in it, or one that cannot be read.
    """
    from vemseg_jax.infer.segmenter import load_segmenter

    return load_segmenter(run, which=which, prediction=prediction, precision=precision)


def train(config: "ExperimentConfig", workdir: StrPath, *, tensorboard: bool = False) -> Path:
    """Trains a network, as `vemseg-train`; called again it continues a run that was stopped.

    The log goes to `log.jsonl` in the folder of the run, and through absl:
    `absl.logging.set_verbosity(absl.logging.INFO)` shows it.

    Args:
      config: the experiment, such as `vemseg_jax.configs.get("unet")` with `config.data.volume`
        set.
      workdir: folder of the run; created if needed.
      tensorboard: also write TensorBoard event files (extra: tensorboard).

    Returns:
      The folder of the run, absolute; for `load` and `predict`.

    Raises:
      InputError: a configuration or data that cannot be used, a folder that holds another run, or
        a loss that is no longer a number.
    """
    from vemseg_jax.train.loop import train as train_

    folder = local_path(workdir, flag="--workdir")
    train_(config, folder, tensorboard=tensorboard)
    return folder


def predict(
    volume: StrPath,
    run: StrPath,
    *,
    which: str | None = None,
    slices: Sequence[int] = (),
    resolution: str = "training",
    batch_size: int = 8,
    suffix: str = "_pred",
    overwrite: bool = False,
    prediction: str | None = None,
    precision: str | None = None,
    method: str = "window",
    overlap: float = 0.75,
    blending: str = "uniform",
    flips: bool = False,
    normalization: str = "volume",
    probabilities: bool = False,
    disagreement: bool = False,
    block_slices: int | None = None,
) -> "Result":
    """Segments the slices of a converted volume in this process, as `vemseg-predict`.

    Prints what is done. Stopped and called again it continues. Several jobs or machines share the
    work with the command (`--num_shards`, `--engine=dask`).

    Args:
      volume: the converted volume; the result becomes a label image of it, such as `nuclei_pred`.
      run: the folder of a training run.
      which: its "best" or "latest" checkpoint; None for the best, or the latest if none was scored.
      slices: z to predict; empty for all.
      resolution: "training" scale, or "full", which also writes the training scale.
      batch_size: windows per call of the network.
      suffix: added to a structure's name for the result.
      overwrite: replace another prediction of the same name.
      prediction: of two networks that taught each other: "first", "second" or "mean"; None as the
        run was configured.
      precision: type of activations and products; None that of the training.
      method: "window", the reference's sliding window, or "whole" slices, several times faster.
      overlap: share of a window that the next one covers.
      blending: how much the pixels of a window count, "uniform" or "gaussian".
      flips: average over the slice and its mirror images.
      normalization: mean and deviation by which grey values are normalised: of the "volume", of the
        "training" or of each "slice".
      probabilities: also store them, 0 to 255, as labels ending in `_prob`.
      disagreement: of two networks, also store how far they lie apart.
      block_slices: slices that are predicted together; None for about 2 million pixels.

    Returns:
      `names` of the label images, whether they are `complete`, and by number of the block what
      `failed`.

    Raises:
      InputError: anything that does not fit; see the message.
    """
    from vemseg_jax.infer.job import PredictOptions
    from vemseg_jax.infer.predict import predict_volume
    from vemseg_jax.infer.predictor import Method

    options = PredictOptions(
        resolution=resolution,
        batch_size=batch_size,
        suffix=suffix,
        prediction=prediction,
        precision=precision,
        method=Method(method, overlap, blending, flips),
        probabilities=probabilities,
        disagreement=disagreement,
        block_slices=block_slices,
        normalization=normalization,
    )
    return predict_volume(
        local_path(volume, flag="--volume"),
        local_path(run, flag="--checkpoint"),
        which=which,
        slices=slices,
        options=options,
        overwrite=overwrite,
    )


def evaluate(
    volume: StrPath,
    *,
    predictions: Sequence[str] | None = None,
    truth: Mapping[str, str] | None = None,
    z_ranges: Sequence[tuple[int, int]] = (),
    exclude: Sequence[int] | None = None,
    level: str | None = None,
    output: StrPath | None = None,
    overwrite: bool = False,
    overlay_slices: Sequence[int] | None = None,
) -> "Evaluation":
    """Scores the predicted labels of a volume, as `vemseg-evaluate`, and writes a folder.

    Args:
      volume: an OME-Zarr volume with predicted labels.
      predictions: names of predicted labels; None for all.
      truth: structure -> label to compare with; by default the label of the structure's name.
      z_ranges: half-open ranges of slices that get scores of their own beside those of all.
      exclude: slices left out as training slices in place of those the prediction records.
      level: "training" or "full"; None for the training scale where there is one.
      output: the folder; by default NAME-evaluation beside the volume.
      overwrite: replace an earlier evaluation in `output`.
      overlay_slices: slices to draw; by default the worst, the median and the best.

    Returns:
      `rows` of the table and its `text`, `slices` with the scores of each, `notes`, and the folder
      `output`.

    Raises:
      InputError: no prediction, no truth, nothing left to score, an output that exists.
    """
    from vemseg_jax.eval.evaluate import evaluate as evaluate_

    check_choice("level", level, LEVELS)
    return evaluate_(
        volume,
        predictions=predictions,
        truth=truth,
        z_ranges=z_ranges,
        exclude=exclude,
        level=level,
        output=output,
        overwrite=overwrite,
        overlay_slices=overlay_slices,
    )


def measure(
    volume: StrPath,
    *,
    nuclei: str = "nuclei_pred",
    nucleoli: str | None = None,
    level: str | None = None,
    z_range: tuple[int, int] | None = None,
    min_nucleus_um3: float = 1.0,
    min_nucleolus_um3: float = 0.01,
    outside: str = "drop",
    connectivity: int = 26,
    meshes: str | None = None,
    memory_gib: float = 4.0,
    output: StrPath | None = None,
    overwrite: bool = False,
) -> "Measurement":
    """Measures nuclei and nucleoli of a whole volume, as `vemseg-measure`, and writes a folder.

    Args:
      volume: an OME-Zarr volume with predicted labels.
      nuclei: label image of nuclei.
      nucleoli: label image of nucleoli, such as "nucleoli_pred"; None for none.
      level: "training" or "full"; None for the training scale where all labels have it.
      z_range: slices (first, one past the last); None for all that have labels.
      min_nucleus_um3: smaller nuclei are left out, µm³.
      min_nucleolus_um3: smaller nucleoli are left out, µm³.
      outside: nucleoli with less than half of their volume in one nucleus: "drop", or "flag" to
        list them without one.
      connectivity: neighbours of a voxel that belong to the same object, 6, 18 or 26.
      meshes: "ply" or "obj" for a mesh of every object; None for none.
      memory_gib: for slabs of the volume and shapes.
      output: the folder; by default NAME-measurement beside the volume.
      overwrite: replace an earlier measurement in `output`.

    Returns:
      `nuclei` and `nucleoli`, an entry each, the table's `text`, `notes`, `warnings`, and the
      folder `output`.

    Raises:
      InputError: a missing label, slices without a label in between, an output that exists.
    """
    from vemseg_jax.measure.measure import measure as measure_
    from vemseg_jax.measure.options import Options

    check_choice("level", level, LEVELS)
    check_choice("outside", outside, ("drop", "flag"))
    check_choice("connectivity", connectivity, (6, 18, 26))
    check_choice("meshes", meshes, (None, "ply", "obj"))
    options = Options(
        nuclei=nuclei,
        nucleoli=nucleoli,
        level=level,
        z_range=z_range,
        connectivity=connectivity,
        min_nucleus_um3=min_nucleus_um3,
        min_nucleolus_um3=min_nucleolus_um3,
        outside=outside,
        meshes=meshes,
        memory_bytes=int(memory_gib * 2**30),
    )
    return measure_(volume, options, output=output, overwrite=overwrite)
