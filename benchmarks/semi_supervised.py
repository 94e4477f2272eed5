"""Supervised training against Cross Pseudo Supervision, with and without CutMix, by 3D Dice.

    python benchmarks/semi_supervised.py --volume=V.zarr --structure=nucleoli --output=DIR \\
        --config=configs/ssl_resunet_cutmix_small.py [--seeds=0,1,2] [--slices=0:48] -- OVERRIDES

The same network, batch size and number of steps for each method and seed, through the binaries:
train on 7 evenly spaced slices of a densely labelled volume, predict, score on the other slices.
OVERRIDES (`--config.train.steps=300`) go to every training. A stopped run goes on where it was.
`--predictions` are those of a pair; `--slices` bounds what is predicted and scored.
Writes `DIR/scores.csv` and prints a table.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

METHODS = ("supervised", "cps", "cps_cutmix")
COLUMNS = ("method", "prediction", "seed", "dice_3d", "training_seconds")


def call(binary: str, *flags: str) -> float:
    """Runs a binary; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"vemseg_jax.cli.{binary}", *flags], check=True)
    return time.perf_counter() - start


def train(arguments: argparse.Namespace, method: str, seed: int) -> tuple[Path, float]:
    """Trains one run, if it is not there yet; returns its folder and seconds."""
    workdir = Path(arguments.output) / f"{method}_{seed}"
    clock = workdir / "training_seconds.json"
    if not clock.exists():
        seconds = call(
            "train",
            f"--config={arguments.config}",
            f"--workdir={workdir}",
            f"--config.data.volume={arguments.volume}",
            f"--config.data.structures=('{arguments.structure}',)",
            "--config.data.num_train_slices=7",
            "--config.data.num_val_slices=0",
            "--config.train.eval_every=0",
            f"--config.cps.method={method}",
            f"--config.train.seed={seed}",
            *arguments.overrides,
        )
        clock.write_text(json.dumps(seconds), encoding="utf-8")
    return workdir, json.loads(clock.read_text(encoding="utf-8"))


def score(arguments: argparse.Namespace, workdir: Path, prediction: str | None) -> float:
    """3D Dice of one run's prediction on the slices it was not trained on."""
    suffix = f"_{workdir.name}_{prediction}" if prediction else f"_{workdir.name}"
    evaluation = workdir / f"evaluation{suffix}"
    if not evaluation.exists():
        which = [f"--prediction={prediction}"] if prediction else []
        call(
            "predict",
            f"--volume={arguments.volume}",
            f"--checkpoint={workdir}",
            f"--suffix={suffix}",
            f"--slices={arguments.slices}",
            "--overwrite",
            *which,
        )
        call(
            "evaluate",
            f"--volume={arguments.volume}",
            f"--predictions={arguments.structure}{suffix}",
            f"--output={evaluation}",
        )
    (scores,) = evaluation.glob("summary.json")
    return json.loads(scores.read_text(encoding="utf-8"))["scores"][0]["dice_3d"]


def table(rows: Sequence[dict]) -> str:
    """Markdown: mean and each seed's Dice, by method and prediction."""
    lines = ["| method | prediction | mean | seeds | training, s |", "|---|---|---:|---|---:|"]
    for method, prediction in dict.fromkeys((r["method"], r["prediction"]) for r in rows):
        found = [r for r in rows if (r["method"], r["prediction"]) == (method, prediction)]
        dice = [r["dice_3d"] for r in found]
        seconds = statistics.median(r["training_seconds"] for r in found)
        each = ", ".join(f"{d:.3f}" for d in dice)
        lines.append(
            f"| {method} | {prediction} | {statistics.mean(dice):.3f} | {each} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parses the arguments, runs what is missing, writes and prints the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volume", required=True)
    parser.add_argument("--structure", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--predictions", default="first,mean")
    parser.add_argument("--slices", default="")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    rows: list[dict] = []
    for seed in (int(text) for text in arguments.seeds.split(",")):
        for method in arguments.methods.split(","):
            workdir, seconds = train(arguments, method, seed)
            of_pair = arguments.predictions.split(",")
            for prediction in [None] if method == "supervised" else of_pair:
                dice = score(arguments, workdir, prediction)
                row = (method, prediction or "first", seed, dice, seconds)
                rows.append(dict(zip(COLUMNS, row, strict=True)))
                print(rows[-1], flush=True)
        with (Path(arguments.output) / "scores.csv").open("w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
