"""`vemseg-predict`: segments the slices of a converted volume."""

from pathlib import Path

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.ranges import parse_slices

_VOLUME = flags.DEFINE_string(
    "volume", None, "Converted volume (OME-Zarr); the result goes there.", required=True
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "The --workdir of a vemseg-train run.", required=True
)
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
_SUFFIX = flags.DEFINE_string("suffix", "_pred", "Added to a structure's name for the result.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing result.")
_PREDICTION = flags.DEFINE_enum(
    "prediction",
    None,
    ["first", "second", "mean"],
    "Of two networks that taught each other; default as the run was configured.",
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


def main() -> None:
    """Predicts and prints the names of the labels written."""
    from vemseg_jax.infer.predict import PredictOptions, predict_volume
    from vemseg_jax.infer.predictor import Method

    names = predict_volume(
        Path(_VOLUME.value),
        Path(_CHECKPOINT.value),
        which=_WHICH.value,
        slices=parse_slices(_SLICES.value, flag="slices"),
        options=PredictOptions(
            resolution=_RESOLUTION.value,
            batch_size=_BATCH_SIZE.value,
            suffix=_SUFFIX.value,
            overwrite=_OVERWRITE.value,
            prediction=_PREDICTION.value,
            method=Method(_METHOD.value, _OVERLAP.value, _BLENDING.value, _FLIPS.value),
        ),
    )
    print(f"done: labels {', '.join(names)} in {_VOLUME.value}")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
