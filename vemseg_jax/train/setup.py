"""Everything a training run needs before its first step."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from vemseg_jax.checkpoint import BEST, LATEST, Checkpoints
from vemseg_jax.config import ExperimentConfig, check_config, differences, plain
from vemseg_jax.data import input_pipeline, normalization
from vemseg_jax.data.atomic import write_json
from vemseg_jax.data.sampling import CropSampler, EvenSampler
from vemseg_jax.data.split import Split, split_slices
from vemseg_jax.data.volume import Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.trained import Description, prediction_apply
from vemseg_jax.models import pair, registry, torch_import
from vemseg_jax.models.torch_files import read_state
from vemseg_jax.train.objective import make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.plateau import Plateau
from vemseg_jax.train.semi_supervised import (
    CollapseWatch,
    create_pair_state,
    make_cps_step,
    make_rule,
    steps_per_epoch,
)
from vemseg_jax.train.state import TrainState, create_state
from vemseg_jax.train.supervised import Objective, make_step
from vemseg_jax.train.validate import Validation, make_validator

CONFIG_NAME = "config.json"
# Fields that change neither the weights nor which of them are best.
FREE_FIELDS = ("train.log_every", "train.checkpoint_every", "cps.collapse_steps")
# Slices by what they are for: "train", "val" and "unlabelled".
Loaded = dict[str, input_pipeline.Planes | None]


@dataclasses.dataclass
class Run:
    """The parts of one training run, ready to go."""

    config: ExperimentConfig
    description: Description
    step: Callable
    sampler: Callable[[int], Any]
    planes: Any
    validate: Callable[[dict], Validation] | None
    checkpoints: Checkpoints
    state: TrainState
    best: float
    watch: CollapseWatch | None = None


def find_split(volume: Volume, config: ExperimentConfig) -> Split:
    """Which labelled slices train and which are held out.

    Raises:
      InputError: slices or labels that are not there.
    """
    data = config.data
    if data.z_range[1] > volume.shape[0]:
        raise InputError(
            f"--config.data.z_range={tuple(data.z_range)} goes beyond the "
            f"{volume.shape[0]} slices of {volume.path}"
        )
    labelled = {z for name in data.structures for z in volume.labelled_slices(name)}
    return split_slices(sorted(labelled), data)


def load(volume: Volume, config: ExperimentConfig) -> tuple[Split, Loaded]:
    """Reads the slices to train on, those held out and those without labels, at training scale.

    Raises:
      InputError: labels or slices that are not there.
    """
    data, split = config.data, find_split(volume, config)
    training = input_pipeline.load_slices(volume, data.structures, split.train)
    val = input_pipeline.load_slices(volume, data.structures, split.val) if split.val else None
    unlabelled = None
    if is_pair(config):
        slices = unlabelled_slices(volume, config, split)
        planes = input_pipeline.load_unlabelled(volume, slices)
        unlabelled = input_pipeline.pad_to_crop(planes, data.crop_size)
    return split, {
        "train": input_pipeline.pad_to_crop(training, data.crop_size),
        "val": val,
        "unlabelled": unlabelled,
    }


def is_pair(config: ExperimentConfig) -> bool:
    """Whether two networks teach each other."""
    return config.cps.method != "supervised"


def _z_range(volume: Volume, config: ExperimentConfig) -> tuple[int, int]:
    low, high = config.data.z_range
    return (low, high) if high else (0, volume.shape[0])


def unlabelled_slices(volume: Volume, config: ExperimentConfig, split: Split) -> list[int]:
    """Every slice in range that neither trains with its label nor is held out.

    Labelled slices that were left out (`--config.data.num_train_slices`) are among them, without
    their labels: they are what is to be segmented.

    Raises:
      InputError: none is left.
    """
    slices = [z for z in range(*_z_range(volume, config)) if z not in {*split.train, *split.val}]
    if not slices:
        raise InputError(
            f"{volume.path} has no unlabelled slice in --config.data.z_range for "
            f"--config.cps.method={config.cps.method}; use --config.cps.method=supervised, or "
            "leave labelled slices out with --config.data.num_train_slices"
        )
    return slices


def describe(config: ExperimentConfig, volume: Volume, split: Split) -> Description:
    """What the checkpoints of this run will say of themselves."""
    low, high = _z_range(volume, config)
    norm = normalization.combine(
        volume.slice_mean[low:high], volume.slice_std[low:high], dtype_max=volume.dtype_max
    )
    return Description(
        model=config.model,
        structures=tuple(config.data.structures),
        crop_size=config.data.crop_size,
        downsample=volume.downsample,
        voxel_size=volume.voxel_size,
        normalization=norm,
        precision=config.train.precision,
        train_slices=split.train,
        val_slices=split.val,
        volume=str(config.data.volume),
        fingerprint=volume.fingerprint,
        config=plain_config(config),
        networks=2 if is_pair(config) else 1,
        prediction=config.cps.prediction,
    )


def plain_config(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as JSON values, with the network's name."""
    return {**plain(config), "model": plain(registry.model_to_dict(config.model))}


def claim(workdir: Path, config: ExperimentConfig) -> None:
    """Writes the configuration into a new folder, or checks it against an old run's."""
    path, new = workdir / CONFIG_NAME, plain_config(config)
    if path.exists():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is no configuration of a run ({error})") from error
        changed = [d for d in differences(old, new) if not d.startswith(FREE_FIELDS)]
        if changed:
            raise InputError(
                f"{workdir} holds a run with another configuration ({'; '.join(changed)}); "
                "choose a new --workdir, or give the same configuration to continue"
            )
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, new)
    except OSError as error:
        raise InputError(f"--workdir={workdir} cannot be written: {error.strerror}") from error


def prepare(
    config: ExperimentConfig,
    description: Description,
    loaded: Loaded,
    checkpoints: Checkpoints,
) -> Run:
    """Builds network, optimizer, sampler and compiled step; resumes from a checkpoint."""
    data, options = config.data, config.train
    model = registry.create_model(config.model, dtype=options.precision)
    optimizer = create_optimizer(config.optimizer, steps=options.steps)
    validate = None
    if loaded["val"] is not None:
        validate = make_validator(
            prediction_apply(model, description),
            loaded["val"],
            description.structures,
            crop_size=data.crop_size,
            batch_size=options.batch_size,
            normalization=description.normalization,
            exclusive=registry.is_exclusive(config.model),
        )
    state, best = _resume(_initial(config, model, optimizer), description, checkpoints)
    parts = _pair_parts if is_pair(config) else _supervised_parts
    step, sampler, planes = parts(config, description, loaded, model, optimizer)
    watch = CollapseWatch(config.cps.collapse_steps) if is_pair(config) else None
    return Run(
        config, description, step, sampler, planes, validate, checkpoints, state, best, watch
    )


def _initial(
    config: ExperimentConfig, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    create = create_pair_state if is_pair(config) else create_state
    channels = getattr(config.model, "in_channels", 1)
    return create(model, optimizer, seed=config.train.seed, channels=channels)


def _objective(config: ExperimentConfig) -> Objective:
    plateau = config.optimizer.schedule == "plateau"
    return make_objective(
        config.loss,
        exclusive=registry.is_exclusive(config.model),
        most_drops=config.optimizer.plateau_drops if plateau else 0,
    )


def _labelled_sampler(
    config: ExperimentConfig, planes: input_pipeline.Planes, batch_size: int
) -> CropSampler:
    data = config.data
    return CropSampler(
        planes.label,
        tuple(data.structures),
        crop_size=data.crop_size,
        batch_size=batch_size,
        empty_probability=data.empty_crop_probability,
        seed=config.train.seed,
    )


# What differs between one network and a pair: step, sampler and slices on the device.
_Parts = tuple[Callable, Callable[[int], Any], Any]


def _supervised_parts(
    config: ExperimentConfig,
    description: Description,
    loaded: Loaded,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> _Parts:
    training = loaded["train"]
    assert training is not None
    step = make_step(
        model,
        optimizer,
        objective=_objective(config),
        crop_size=config.data.crop_size,
        normalization=description.normalization,
        seed=config.train.seed,
    )
    sampler = _labelled_sampler(config, training, config.train.batch_size)
    return step, sampler, jax.device_put(training)


def _pair_parts(
    config: ExperimentConfig,
    description: Description,
    loaded: Loaded,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
) -> _Parts:
    training, unlabelled = loaded["train"], loaded["unlabelled"]
    assert training is not None and unlabelled is not None
    half, data = config.train.batch_size // 2, config.data
    step = make_cps_step(
        model,
        optimizer,
        config=config.cps,
        rule=make_rule(config, _objective(config)),
        crop_size=data.crop_size,
        epoch_steps=steps_per_epoch(config, len(description.train_slices)),
        normalization=description.normalization,
        seed=config.train.seed,
    )
    labelled_crops = _labelled_sampler(config, training, half)
    unlabelled_crops = EvenSampler(
        len(unlabelled.image),
        unlabelled.image.shape[1:],
        crop_size=data.crop_size,
        batch_size=half,
        seed=config.train.seed,
    )
    return (
        step,
        lambda number: (labelled_crops(number), unlabelled_crops(number)),
        jax.device_put((training, unlabelled)),
    )


def import_weights(config: ExperimentConfig, workdir: Path, weights: Path, *, encoder: bool) -> int:
    """Makes a run whose first checkpoint holds weights from torch: to predict or to train on.

    Args:
      config: the experiment; the volume gives grey-value statistics and labelled slices.
      workdir: a new folder.
      weights: see `torch_files.read_state`.
      encoder: the weights are those of an ImageNet classifier, for the encoder alone; the rest
        starts at random. Of two networks both get the encoder, or else the first all weights.

    Returns:
      How many arrays were taken from the file.

    Raises:
      InputError: weights, volume or folder that cannot be used; no folder is left then.
    """
    check_config(config)
    state_dict = read_state(weights)
    if (workdir / CONFIG_NAME).exists():
        raise InputError(f"{workdir} holds a run already; choose a new --workdir")
    model = registry.create_model(config.model)
    optimizer = create_optimizer(config.optimizer, steps=config.train.steps)
    state = _initial(config, model, optimizer)
    networks = [pair.network(state.variables, n) for n in (0, 1)] if is_pair(config) else []
    for n, start in enumerate(networks or [state.variables]):
        if encoder:
            found = torch_import.encoder_to_flax(config.model, state_dict, start)
        elif n == 0:
            found = torch_import.to_flax(config.model, state_dict)
        else:
            # Two equal networks have nothing to teach each other.
            found = start
        networks[n : n + 1] = [found]
    variables = pair.join(*networks) if is_pair(config) else networks[0]
    variables = jax.tree.map(lambda x: np.asarray(x, np.float32), variables)
    volume = open_volume(config.data.volume)
    description = describe(config, volume, find_split(volume, config))
    claim(workdir, config)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(
            LATEST,
            0,
            variables=variables,
            optimizer=jax.device_get(optimizer_item(state)),
            meta=description.to_meta(step=0, val_dice={}),
        )
    return len(state_dict)


def _resume(
    state: TrainState, description: Description, checkpoints: Checkpoints
) -> tuple[TrainState, float]:
    """The state of the latest checkpoint and the best score so far, if there are any."""
    if checkpoints.step(LATEST) is None:
        return state, -math.inf
    meta = checkpoints.meta(LATEST)
    new = description.to_meta(step=meta["step"], val_dice=meta["val_dice"])
    ignored = ("config", "version", "volume")
    changed = differences(
        {k: v for k, v in meta.items() if k not in ignored},
        {k: v for k, v in json.loads(json.dumps(new)).items() if k not in ignored},
    )
    if changed:
        raise InputError(
            f"the checkpoint in --workdir was trained on another network or other data "
            f"({'; '.join(changed)}); choose a new --workdir"
        )
    variables, (opt_state, plateau) = checkpoints.restore(
        LATEST, variables=state.variables, optimizer=optimizer_item(state)
    )
    state = TrainState(
        step=np.asarray(meta["step"], np.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=opt_state,
        plateau=plateau,
    )
    best = checkpoints.step(BEST)
    # A best checkpoint from beyond the resumed step is made again when that step comes.
    score = mean_score(checkpoints.meta(BEST)["val_dice"]) if best is not None else -math.inf
    return jax.device_put(state), score


def optimizer_item(state: TrainState) -> tuple[Any, Plateau]:
    """What a checkpoint holds beside the weights, so that training can go on."""
    return state.opt_state, state.plateau


def mean_score(val_dice: dict[str, float]) -> float:
    """Mean over structures, for ranking; a structure that no held-out slice shows counts 0."""
    values = [0.0 if math.isnan(v) else v for v in val_dice.values()]
    return float(np.mean(values)) if values else -math.inf
