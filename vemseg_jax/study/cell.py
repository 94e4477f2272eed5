"""One run of a study: train, predict, score. A process of its own, `python -m`."""

import csv
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import vemseg_jax
from vemseg_jax.compiled_programs import keep_compiled_programs
from vemseg_jax.errors import InputError
from vemseg_jax.huge_pages import restart_with_huge_pages

RESULT = "result.json"
INTERRUPTED_STATUS = 130
# Of a row of `evaluation/summary.json`.
SCORED = (
    "dice_3d", "dice_3d_structure_slices", "average_dice_2d", "slices_scored",
    "slices_with_structure", "scored_slices_seen_without_label",
)  # fmt: skip


def run_cell(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Trains, predicts and scores what `spec` says; one that was stopped continues.

    Args:
      folder: of the run.
      spec: `config`, a file with the configuration; `volume` to score; `suffix` of the predicted
        labels; `scored`, slices; `method` and `batch_size` of the prediction.

    Returns:
      The scores of each structure, seconds and counts.
    """
    import jax
    from absl import logging

    from vemseg_jax.data.store.volume import open_volume
    from vemseg_jax.eval.evaluate import evaluate
    from vemseg_jax.infer.job import PredictOptions
    from vemseg_jax.infer.predict import predict_volume
    from vemseg_jax.infer.predictor import Method
    from vemseg_jax.study.specs import experiment_of
    from vemseg_jax.train.loop import train
    from vemseg_jax.train.state import parameter_count

    logging.set_verbosity(logging.INFO)
    config, volume = experiment_of(spec), Path(spec["volume"])
    resumed = (folder / "training").exists()
    start = time.monotonic()
    state = train(config, folder / "training")
    seconds = time.monotonic() - start
    start = time.monotonic()
    options = PredictOptions(suffix=spec["suffix"], method=Method(spec["method"]))
    # What has this name came from a run that was not finished, with other weights.
    predicted = predict_volume(volume, folder / "training", options=options, overwrite=True)
    if predicted.failed or not predicted.complete:
        raise RuntimeError(f"prediction: {predicted.failed or 'incomplete'}")
    predicting = time.monotonic() - start
    opened = open_volume(volume)
    labelled = {z for name in config.data.structures for z in opened.labelled_slices(name)}
    for name in predicted.names:
        trained_on = set(opened.label_info(name)["training_slices"]) & set(spec["scored"])
        if trained_on:
            raise InputError(
                f"{volume}: the scored slices {sorted(trained_on)} were trained on, in another "
                "volume of the study that shows the same images; leave one of the two out"
            )
    evaluation = folder / "evaluation"
    evaluate(
        volume,
        predictions=[f"{name}{spec['suffix']}" for name in config.data.structures],
        exclude=sorted(labelled - set(spec["scored"])),
        output=evaluation,
        overwrite=True,
    )
    return {
        "scores": _scores(evaluation),
        "training_slices": spec["training_slices"],
        "training_seconds": seconds,
        "prediction_seconds": predicting,
        # Then these seconds are those of a part only.
        "resumed": resumed,
        "steps": config.train.steps,
        "parameters": parameter_count(state.params),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "vemseg_jax": vemseg_jax.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _scores(evaluation: Path) -> dict[str, Any]:
    """By structure: both 3D Dice, average 2D Dice, and the Dice of every compared slice."""
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    found = {}
    for row in summary["scores"]:
        path = evaluation / f"per_slice_{row['structure']}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            slices = [
                [int(line["z"]), line["role"], float(line["dice_2d"]) if line["dice_2d"] else None]
                for line in csv.DictReader(file)
            ]
        found[row["structure"]] = {key: row[key] for key in SCORED} | {
            "prediction": row["prediction"],
            "slices": slices,
        }
    return found


def main() -> None:
    """Runs the cell of a folder, which holds `spec.json`; leaves `result.json`."""
    from vemseg_jax.data.store.atomic import write_json

    keep_compiled_programs()
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    write_json(folder / RESULT, run_cell(folder, spec))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    restart_with_huge_pages()
    # Whoever runs the study in a shell's background means this process to be stopped all the same.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        main()
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)
