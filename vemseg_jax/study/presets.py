"""The studies that come with the package."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vemseg_jax import configs as experiments
from vemseg_jax.config import (
    CPSConfig,
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from vemseg_jax.data.convert.empty_slices import NONE
from vemseg_jax.data.convert.label_placing import ALL
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.phantom.stack import Phantom, PhantomConfig, write_tiff_stack
from vemseg_jax.data.store.atomic import lock, unlock
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.models.resunet import ResUNetConfig
from vemseg_jax.models.unet import SmallUNetConfig
from vemseg_jax.study.design import Method, Study, StudyVolume

PRESETS = ("smoke", "phantom_small", "hela", "paper")
BUDGETS = (7, 10, 15, 25)
STRUCTURES = ("nuclei", "nucleoli")
# The paper's methods: file of `configs/` and the method each would improve on.
PAPER_METHODS = {
    "ResUNet": ("resunet", ""),
    "UNet++": ("unetplusplus", ""),
    # The network of the semi-supervised ones, on labels alone.
    "UNet++ depth 3": ("unetplusplus_cps", ""),
    "FracTALResNet": ("fractal_resnet", ""),
    "CEECNet V1": ("ceecnet_v1", ""),
    "CEECNet V2": ("ceecnet_v2", ""),
    "SenFormer": ("senformer", ""),
    "SSL-ResUNet": ("ssl_resunet", "ResUNet"),
    "SSL-ResUNet + CutMix": ("ssl_resunet_cutmix", "ResUNet"),
    "SSL-UNet++": ("ssl_unetplusplus", "UNet++ depth 3"),
    "SSL-UNet++ + CutMix": ("ssl_unetplusplus_cutmix", "UNet++ depth 3"),
}
SHORT_NOTE = (
    "These runs are small networks of {steps} steps; the paper's are large ones of 22,500 to"
    " 74,500 (--preset=paper). What does not show here may show there, and the other way round."
)
HELA_NOTE = (
    "HeLa is EMPIAR-10094, region 1656-6756-329. A band along the edge of its central nucleus was"
    " filled in after a prediction; dilated by 3 pixels it is left out of loss and score, which"
    " flatters every figure of this volume: of the pixels at the edges of nuclei it takes 42 % in"
    " z 0-149 and 96 % in z 150-194. Its nucleoli have no labels and no score."
)


def _small(
    model: ModelConfig, method: str, *, steps: int, crop: int, batch: int, rate: float
) -> ExperimentConfig:
    """A run of minutes on two cores; a pair sees as many labelled crops a step as one network."""
    pair = method != "supervised"
    return ExperimentConfig(
        model=model,
        data=DataConfig(crop_size=crop),
        cps=CPSConfig(method=method),
        optimizer=OptimizerConfig(learning_rate=rate, warmup_steps=20),
        train=TrainConfig(
            batch_size=batch * (2 if pair else 1), steps=steps, log_every=50, checkpoint_every=200
        ),
    )


def _small_methods(
    *, steps: int, crop: int, batch: int, channels: int, rate: float, levels: int = 3
) -> tuple[Method, ...]:
    def unet() -> SmallUNetConfig:
        return SmallUNetConfig(base_channels=channels, levels=levels)

    filters = tuple(channels * n for n in (1, 2, 4, 4, 4))
    size: Any = {"steps": steps, "crop": crop, "batch": batch, "rate": rate}
    return (
        Method("ResUNet", _small(ResUNetConfig(filters=filters), "supervised", **size)),
        Method("UNet", _small(unet(), "supervised", **size)),
        Method("SSL-UNet", _small(unet(), "cps", **size), base="UNet"),
        Method("SSL-UNet + CutMix", _small(unet(), "cps_cutmix", **size), base="UNet"),
    )


def _phantoms(
    output: Path, shape: tuple[int, int, int], names: Sequence[str]
) -> tuple[StudyVolume, ...]:
    """Phantoms of the presets, made where they are not there yet; every slice is labelled."""
    found = []
    output.mkdir(parents=True, exist_ok=True)
    taken = lock(output, wait=True)  # of several processes, one makes them
    try:
        for seed, name in enumerate(names):
            found.append(_phantom(output, shape, name, seed))
    finally:
        unlock(taken)
    return tuple(found)


def _phantom(output: Path, shape: tuple[int, int, int], name: str, seed: int) -> StudyVolume:
    path = output / "volumes" / f"{name}.zarr"
    if not path.exists():
        config = PhantomConfig(preset=name, shape=shape, voxel_size=(80, 32, 32), seed=seed)
        stack = output / "volumes" / name
        if not stack.exists():
            write_tiff_stack(Phantom(config), stack, progress=True)
        labels = [(structure, stack / "truth" / structure) for structure in STRUCTURES]
        options = ConvertOptions(
            voxel_size=config.voxel_size,
            labels=labels,
            unlabelled_slices={ALL: NONE},
            downsample=4,
        )
        convert(stack / "images", path, options)
    return StudyVolume(name, path, STRUCTURES)


def smoke(output: Path) -> Study:
    """Every part once, as small as it goes: it shows that all of it runs, and no more."""
    methods = _small_methods(steps=3, crop=64, batch=2, channels=4, rate=3e-3, levels=1)
    return Study(
        name="smoke",
        volumes=_phantoms(output, (12, 256, 320), ("biopsy1", "biopsy3")),
        # With fewer, no training slice of biopsy3 shows a nucleolus.
        budgets=(3, 4),
        methods=methods[1:],
        joint=True,
        ramp_end=0.5,
        across=True,
        across_budget=3,
        across_methods=("UNet", "SSL-UNet + CutMix"),
        note=SHORT_NOTE.format(steps=3),
    )


def phantom_small(output: Path) -> Study:
    """Three phantoms, three networks and methods for two cores in less than an hour."""
    return Study(
        name="phantom_small",
        volumes=_phantoms(output, (80, 640, 640), ("biopsy1", "biopsy2", "biopsy3")),
        budgets=BUDGETS,
        methods=_small_methods(steps=200, crop=96, batch=4, channels=8, rate=1e-2),
        joint=True,
        ramp_end=0.5,
        prediction="whole",
        across=True,
        across_methods=("UNet", "SSL-UNet", "SSL-UNet + CutMix"),
        note=SHORT_NOTE.format(steps=200),
    )


def hela(output: Path, data: Path | None) -> Study:
    """Nuclei of the HeLa volume (EMPIAR-10094) in `data`: em.tif, nuclei.tif, filled_mask.tif."""
    if data is None or not (data / "em.tif").exists():
        raise InputError(
            f"--data={data}: give the folder with em.tif, nuclei.tif and filled_mask.tif of the "
            "HeLa volume"
        )
    path = output / "volumes" / "hela.zarr"
    options = ConvertOptions(
        voxel_size=(50, 40, 40),
        labels=[("nuclei", data / "nuclei.tif")],
        ignore=data / "filled_mask.tif",
        ignore_dilation=3,
        downsample=1,
    )
    output.mkdir(parents=True, exist_ok=True)
    taken = lock(output, wait=True)  # of several processes, one converts it
    try:
        if not path.exists():
            convert(data / "em.tif", path, options)
    finally:
        unlock(taken)
    return Study(
        name="hela",
        volumes=(StudyVolume("HeLa", path, ("nuclei",), HELA_NOTE),),
        budgets=BUDGETS,
        methods=_small_methods(steps=200, crop=128, batch=4, channels=8, rate=5e-3),
        ramp_end=0.5,
        # Windows of 128 would pass each pixel 16 times, on all 195 slices of every run.
        prediction="whole",
        note=SHORT_NOTE.format(steps=200),
    )


def paper(volumes: Sequence[str], configs: Path) -> Study:
    """The paper's schedule and methods on converted volumes, given as `NAME=PATH`."""
    found = tuple(_named_volume(text) for text in volumes)
    if not found:
        raise InputError("--volumes: missing; give converted volumes, --volumes=NAME=PATH,...")
    methods = tuple(
        Method(name, load_config(configs / f"{file}.py"), base)
        for name, (file, base) in PAPER_METHODS.items()
    )
    return Study(
        name="paper",
        volumes=found,
        budgets=BUDGETS,
        methods=methods,
        seeds=(0, 1, 2),
        across=len(found) > 2,
        across_budget=max(BUDGETS),
        across_methods=tuple(name for name in PAPER_METHODS if "UNet" in name),
        steps_for=7,
    )


def _named_volume(text: str) -> StudyVolume:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise InputError(f"--volumes: found {text!r}, give NAME=PATH such as Vol1=vol1.zarr")
    volume = open_volume(path)
    structures = tuple(s for s in STRUCTURES if s in volume.label_names)
    if not structures:
        raise InputError(
            f"--volumes: {volume.path} has neither of the labels {', '.join(STRUCTURES)}"
        )
    return StudyVolume(name, volume.path, structures)


def load_config(path: Path) -> ExperimentConfig:
    """The experiment of a configuration file.

    Raises:
      InputError: no such file.
    """
    if not path.exists():
        raise InputError(f"--configs: {path} is not there; give the folder with the experiments")
    return experiments.get(path)


def narrowed(
    study: Study,
    *,
    budgets: Sequence[int] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    prediction: str | None = None,
    precision: str | None = None,
) -> Study:
    """The study with other budgets, seeds, prediction or types, or some of its methods alone.

    Raises:
      InputError: a method that it does not have.
    """
    names = [method.name for method in study.methods]
    for name in methods:
        if name not in names:
            raise InputError(f"--methods: found {name!r}; this study has: {', '.join(names)}")
    kept = tuple(m for m in study.methods if not methods or m.name in methods)
    if precision is not None:
        kept = tuple(_in_precision(method, precision) for method in kept)
    across_methods = tuple(n for n in study.across_methods if not methods or n in methods)
    across_budget = study.across_budget
    if budgets and across_budget not in budgets:
        across_budget = max(budgets)
    return dataclasses.replace(
        study,
        budgets=tuple(budgets) or study.budgets,
        methods=kept,
        across=study.across and bool(across_methods),
        across_budget=across_budget,
        seeds=tuple(seeds) or study.seeds,
        prediction=prediction or study.prediction,
        across_methods=across_methods,
    )


def _in_precision(method: Method, precision: str) -> Method:
    train = dataclasses.replace(method.config.train, precision=precision)
    return dataclasses.replace(method, config=dataclasses.replace(method.config, train=train))
