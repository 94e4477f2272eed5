"""Scores the predicted labels of a volume: tables, per-slice CSV, a plot and pictures."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.errors import InputError

VOLUME = flags.DEFINE_string("volume", None, "OME-Zarr volume with predicted labels.")
PREDICTIONS = flags.DEFINE_list(
    "predictions", None, "Predicted labels to score; all of them by default."
)
TRUTH = flags.DEFINE_list(
    "truth",
    None,
    "STRUCTURE=LABEL pairs: the label a structure is compared with. By default the label that "
    "bears the structure's name. Example: --truth=nuclei=nuclei_truth",
)
Z_RANGES = flags.DEFINE_list(
    "z_ranges",
    None,
    "Ranges of slices START:STOP (STOP not included) that get scores of their own beside those "
    "of all slices. Example: --z_ranges=0:150,150:195",
)
EXCLUDE = flags.DEFINE_list(
    "exclude",
    None,
    "Slices left out as training slices, in place of those the prediction records. Validation "
    "slices stay left out. Example: --exclude=0,25,50",
)
LEVEL = flags.DEFINE_enum(
    "level",
    None,
    ["training", "full"],
    "Scale of the comparison; training scale where there is one.",
)
OUTPUT = flags.DEFINE_string("output", None, "Result folder; NAME-evaluation beside the volume.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier evaluation in --output.")
OVERLAY_SLICES = flags.DEFINE_list(
    "overlay_slices", None, "Slices to draw; by default the worst, the median and the best."
)


def _integer(text: str, *, flag: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{flag}: found {text!r}, give slice numbers like {example}") from None


def _integers(values: list[str] | None, *, flag: str) -> list[int] | None:
    if values is None:
        return None
    return [_integer(value, flag=flag, example=f"{flag}=0,25,50") for value in values if value]


def _ranges(values: list[str] | None) -> list[tuple[int, int]]:
    ranges = []
    for value in values or ():
        parts = value.split(":")
        if len(parts) != 2:
            raise InputError(
                f"--z_ranges: found {value!r}, give START:STOP ranges like --z_ranges=0:150,150:195"
            )
        start, stop = (
            _integer(part, flag="--z_ranges", example="--z_ranges=0:150,150:195") for part in parts
        )
        ranges.append((start, stop))
    return ranges


def _pairs(values: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values or ():
        structure, equals, label = value.partition("=")
        if not (structure and equals and label):
            raise InputError(
                f"--truth: found {value!r}, give STRUCTURE=LABEL like --truth=nuclei=nuclei_truth"
            )
        if structure in pairs:
            raise InputError(f"--truth: {structure!r} is given twice; give one label a structure")
        pairs[structure] = label
    return pairs


def main() -> None:
    """Evaluates the volume of the flags and prints the table."""
    from vemseg_jax.eval.evaluate import evaluate

    if not VOLUME.value:
        raise InputError("--volume: missing; give an OME-Zarr volume, --volume=stack.zarr")
    result = evaluate(
        VOLUME.value,
        predictions=PREDICTIONS.value,
        truth=_pairs(TRUTH.value),
        z_ranges=_ranges(Z_RANGES.value),
        exclude=_integers(EXCLUDE.value, flag="--exclude"),
        level=LEVEL.value,
        output=OUTPUT.value,
        overwrite=OVERWRITE.value,
        overlay_slices=_integers(OVERLAY_SLICES.value, flag="--overlay_slices"),
    )
    print(result.text)
    print(f"written: {result.output}")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
