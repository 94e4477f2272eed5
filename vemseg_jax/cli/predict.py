"""`vemseg-predict`: segments the slices of a converted volume, or verifies what it wrote."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.flag_paths import given_path
from vemseg_jax.cli.ranges import parse_slices
from vemseg_jax.config import PRECISIONS
from vemseg_jax.data.store.label_names import MASK_SUFFIX
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

if TYPE_CHECKING:
    from vemseg_jax.infer.predict import Result

_VOLUME = flags.DEFINE_string(
    "volume", None, "Converted volume (OME-Zarr); the result goes there.", required=True
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The --workdir of a vemseg-train run.")
_WHICH = flags.DEFINE_enum(
    "which", None, ["best", "latest"], "Checkpoint; default the best, or latest if none was scored."
)
_SLICES = flags.DEFINE_string("slices", "", "z to predict, such as 0:150,170; default all.")
_RESOLUTION = flags.DEFINE_enum(
    "resolution",
    "training",
    ["training", "full"],
    "Scale of the result; full also writes the training scale, made from it.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Windows per call of the network.", 1)
_SUFFIX = flags.DEFINE_string("suffix", MASK_SUFFIX, "Added to a structure's name for the result.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace another prediction of the same name, finished or not."
)
_PREDICTION = flags.DEFINE_enum(
    "prediction",
    None,
    ["first", "second", "mean"],
    "Which of two networks that taught each other predicts, or the mean of both; default as the run"
    " was configured.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    list(PRECISIONS),
    "Type of activations and products; default that of the training.",
)
_METHOD = flags.DEFINE_enum(
    "method",
    "window",
    ["window", "whole"],
    "The reference's sliding window, or whole slices in one pass at training scale (for networks"
    " whose attention or pooling spans the crop, in the fewest windows): several times faster.",
)
_OVERLAP = flags.DEFINE_float("overlap", 0.75, "Share of a window that the next one covers.")
_BLENDING = flags.DEFINE_enum(
    "blending", "uniform", ["uniform", "gaussian"], "How much the pixels of a window count."
)
_FLIPS = flags.DEFINE_bool("flips", False, "Average over the slice and its mirror images.")
_NORMALIZATION = flags.DEFINE_enum(
    "normalization",
    "volume",
    ["volume", "training", "slice"],
    "Mean and deviation by which grey values are normalised. volume: the volume's own, so that one"
    " that is darker or of less contrast than the training volume is predicted alike; the training"
    " volume itself as in training. training: those of the training, for volumes of the same"
    " brightness that show other things. slice: each slice by its own, where brightness changes"
    " from slice to slice.",
)

_PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Also write probabilities, 0 to 255, as labels ending in _prob."
)
_DISAGREEMENT = flags.DEFINE_bool(
    "disagreement",
    False,
    "For two networks that taught each other: also write how far their probabilities lie apart, 0"
    " to 255, as labels ending in _disagreement. They show where to doubt the result.",
)
_TIFF_OUTPUT = flags.DEFINE_string(
    "tiff_output", None, "Folder: also write the results as TIFF files, one a slice."
)
_BLOCK_SLICES = flags.DEFINE_integer(
    "block_slices",
    None,
    "Slices that are predicted together and lost together if the program dies; by default as many"
    " as have about 2 million pixels at training scale.",
    1,
)
_ENGINE = flags.DEFINE_enum(
    "engine", "local", ["local", "dask"], "Who works: this process, or workers of dask."
)
_SCHEDULER = flags.DEFINE_string(
    "scheduler", None, "Address of a dask scheduler, such as tcp://10.0.0.1:8786."
)
_SCHEDULER_FILE = flags.DEFINE_string(
    "scheduler_file", None, "File that `dask scheduler --scheduler-file` wrote."
)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Processes on this machine, of --engine=dask without a scheduler.", 1
)
_SHARD = flags.DEFINE_integer("shard", 0, "In an array of jobs: the number of this job, from 0.")
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", 1, "Jobs that share the blocks; each may run anywhere, the last one finishes."
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Predict nothing; read every block again and say what is missing or damaged."
)
_LABELS = flags.DEFINE_list("labels", [], "Label images to verify; default all predictions.")

UNSOUND_STATUS = 1
# Of the blocks that failed, so many are named.
MOST_SHOWN = 20


def main() -> int | None:
    """Predicts and prints the names of the labels written; status 1 if something is missing."""
    volume = local_path(_VOLUME.value, flag="--volume")
    if _VERIFY.value:
        return _verify(volume)
    if _CHECKPOINT.value is None:
        raise InputError("--checkpoint: missing; give the --workdir of a vemseg-train run")
    if _LABELS.value:
        raise InputError("--labels belongs to --verify; leave it out")
    from vemseg_jax.infer.export import check_output, export_tiff

    tiff = given_path(_TIFF_OUTPUT)
    if tiff is not None:
        check_output(tiff, overwrite=_OVERWRITE.value)
    result = _predict(volume, local_path(_CHECKPOINT.value, flag="--checkpoint"))
    for number, message in sorted(result.failed.items())[:MOST_SHOWN]:
        print(f"failed      block {number}: {message}")
    if result.failed:
        print(
            f"incomplete: {len(result.failed)} blocks failed; finished blocks are kept; remove the"
            " cause and run the command again"
        )
        return UNSOUND_STATUS
    if not result.complete:
        print(f"done with this shard; others have {result.left} blocks left")
        return None
    if tiff is not None:
        export_tiff(volume, result.names, tiff, overwrite=_OVERWRITE.value)
    print(f"done: labels {', '.join(result.names)} in {volume}")
    return None


def _predict(volume: Path, workdir: Path) -> "Result":
    from vemseg_jax.infer.engines import Engine
    from vemseg_jax.infer.job import PredictOptions
    from vemseg_jax.infer.predict import Sharing, predict_volume
    from vemseg_jax.infer.predictor import Method

    return predict_volume(
        volume,
        workdir,
        which=_WHICH.value,
        slices=parse_slices(_SLICES.value, flag="slices"),
        options=PredictOptions(
            resolution=_RESOLUTION.value,
            batch_size=_BATCH_SIZE.value,
            suffix=_SUFFIX.value,
            prediction=_PREDICTION.value,
            precision=_PRECISION.value,
            method=Method(_METHOD.value, _OVERLAP.value, _BLENDING.value, _FLIPS.value),
            probabilities=_PROBABILITIES.value,
            disagreement=_DISAGREEMENT.value,
            block_slices=_BLOCK_SLICES.value,
            normalization=_NORMALIZATION.value,
        ),
        overwrite=_OVERWRITE.value,
        engine=Engine(_ENGINE.value, _SCHEDULER.value, given_path(_SCHEDULER_FILE), _WORKERS.value),
        sharing=Sharing(_SHARD.value, _NUM_SHARDS.value),
    )


def _verify(volume: Path) -> int:
    from vemseg_jax.infer.verify import verify

    verdicts = verify(volume, _LABELS.value)
    for verdict in verdicts:
        print("\n".join(verdict.lines()))
    return 0 if all(verdict.is_sound for verdict in verdicts) else UNSOUND_STATUS


def entry() -> None:
    """The console script."""
    app.run(main, kept="the blocks that are done are kept")


if __name__ == "__main__":
    entry()
