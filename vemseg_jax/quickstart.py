"""The whole way once, on a phantom: generate, convert, train, predict, evaluate."""

import importlib.util
import json
import shutil
import time
from pathlib import Path

from absl import logging

from vemseg_jax.commands import shown
from vemseg_jax.config import DataConfig, ExperimentConfig, OptimizerConfig, TrainConfig
from vemseg_jax.data.convert.empty_slices import NONE
from vemseg_jax.data.convert.label_placing import ALL
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.crops.split import evenly_spaced
from vemseg_jax.data.phantom.stack import Phantom, PhantomConfig, write_tiff_stack
from vemseg_jax.errors import InputError
from vemseg_jax.eval.evaluate import Evaluation, evaluate
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.models.unet import SmallUNetConfig
from vemseg_jax.next_steps import next_steps, suited_config
from vemseg_jax.paths import local_path
from vemseg_jax.progress import clock
from vemseg_jax.train.loop import train

STRUCTURES = ("nuclei", "nucleoli")
TRUTH = {"nuclei": "nuclei_truth", "nucleoli": "nucleoli_truth"}
NUM_TRAIN_SLICES, CROP_SIZE = 7, 128
RESULTS = ("phantom", "labels", "volume.zarr", "training", "evaluation")


def experiment(
    volume: Path, train_slices: tuple[int, ...], *, steps: int, precision: str
) -> ExperimentConfig:
    """A small U-Net for both structures at once, sized for two CPU cores."""
    return ExperimentConfig(
        model=SmallUNetConfig(base_channels=16, num_classes=len(STRUCTURES)),
        data=DataConfig(
            volume=str(volume),
            structures=STRUCTURES,
            crop_size=CROP_SIZE,
            train_slices=train_slices,
            num_val_slices=0,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
        train=TrainConfig(
            batch_size=6, steps=steps, log_every=20, checkpoint_every=100, precision=precision
        ),
    )


def quickstart(
    output: Path,
    *,
    phantom: PhantomConfig,
    steps: int,
    precision: str = "float32",
    overwrite: bool = False,
) -> Evaluation:
    """Makes a phantom stack and takes it through every step of the product.

    Trains on 7 evenly spaced labelled slices and scores all the others. A step that is already
    done is not done again: an interrupted run continues when it is started again.

    Args:
      output: folder for everything.
      phantom: what to generate.
      steps: of training.
      precision: type of activations, of `config.PRECISIONS`.
      overwrite: start anew in a folder that holds an earlier quickstart.

    Raises:
      InputError: a folder that holds something else.
    """
    start, output = time.monotonic(), local_path(output, flag="--output")
    settings = {"phantom": vars(phantom), "steps": steps, "precision": precision}
    _claim(output, json.loads(json.dumps(settings)), overwrite=overwrite)
    stack, labels, volume = output / "phantom", output / "labels", output / "volume.zarr"
    train_slices = evenly_spaced(range(phantom.shape[0]), NUM_TRAIN_SLICES)

    def headline(number: int, text: str) -> None:
        print(f"\n[{number}/5 {clock(time.monotonic() - start)}] {text}", flush=True)

    headline(1, f"phantom of {' x '.join(map(str, phantom.shape))} voxels -> {shown(stack)}")
    if not stack.exists():
        write_tiff_stack(Phantom(phantom), stack, progress=True)
    headline(2, f"convert to OME-Zarr, labels on slices {list(train_slices)} -> {shown(volume)}")
    if not volume.exists():
        _annotate(stack, labels, train_slices)
        convert(stack / "images", volume, _convert_options(stack, labels, phantom))
    headline(3, f"train for {steps} steps -> {shown(output / 'training')}")
    logging.set_verbosity(logging.INFO)
    config = experiment(volume, train_slices, steps=steps, precision=precision)
    train(config, output / "training")
    headline(4, f"predict all slices -> labels in {shown(volume)}")
    predicted = predict_volume(volume, output / "training", overwrite=True)
    if not predicted.complete:
        raise InputError("; ".join(predicted.failed.values()))
    headline(5, f"evaluate the slices that were not trained on -> {shown(output / 'evaluation')}")
    result = evaluate(volume, truth=TRUTH, output=output / "evaluation", overwrite=True)
    print(f"{result.text}\n\ndone in {clock(time.monotonic() - start)}")
    print(
        next_steps(
            output,
            labels=predicted.names,
            structures=STRUCTURES,
            voxel_size=phantom.voxel_size,
            config=suited_config(),
            has_viewer=importlib.util.find_spec("neuroglancer") is not None,
            crop_size=CROP_SIZE,
        )
    )
    return result


def _annotate(stack: Path, labels: Path, train_slices: tuple[int, ...]) -> None:
    """Leaves the labels of seven slices in a folder, as somebody who drew them would."""
    for name in STRUCTURES:
        (labels / name).mkdir(parents=True, exist_ok=True)
        for z in train_slices:
            file = f"{name}_{z:04d}.tif"
            shutil.copyfile(stack / "truth" / name / file, labels / name / file)


def _convert_options(stack: Path, labels: Path, phantom: PhantomConfig) -> ConvertOptions:
    """Seven slices of each structure as labels; all slices under another name as the truth."""
    drawn = [(name, labels / name) for name in STRUCTURES]
    truth = [(TRUTH[name], stack / "truth" / name) for name in STRUCTURES]
    return ConvertOptions(
        voxel_size=phantom.voxel_size,
        labels=drawn + truth,
        unlabelled_slices={ALL: NONE},
        downsample=4,
    )


def _claim(output: Path, settings: dict, *, overwrite: bool) -> None:
    """Takes an empty folder, or one of an interrupted quickstart with the same settings."""
    record = output / "quickstart.json"
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output} is a file; give a folder")
    if record.exists():
        same = json.loads(record.read_text(encoding="utf-8")) == settings
        if same and not overwrite:
            return
        if not overwrite:
            raise InputError(
                f"--output={output} holds a quickstart with other settings; choose another "
                "folder or give --overwrite"
            )
        for name in RESULTS:
            shutil.rmtree(output / name, ignore_errors=True)
    elif output.exists() and any(output.iterdir()):
        raise InputError(f"--output={output} is not empty; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings, indent=1), encoding="utf-8")
