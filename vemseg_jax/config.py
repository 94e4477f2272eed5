"""Experiment configuration: dataclasses and their JSON form; `config_check` has their checks.

A file under `configs/` has a `get_config()` that returns an `ExperimentConfig`; every field can
be overridden on the command line (`--config.optimizer.learning_rate=1e-4`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

PRECISIONS = ("float32", "bfloat16", "float16")
SCHEDULES = ("warmup_poly", "reference", "constant", "plateau")
OPTIMIZERS = ("adam", "adamw")
LOSSES = ("soft_dice", "dice_coef", "fractal_tanimoto", "senformer")
METHODS = ("supervised", "cps", "cps_cutmix")
CROSS_LOSSES = ("dice", "cross_entropy")
RAMPS = ("epoch", "step")
STATISTICS = ("reference", "merged")
# What the prediction of two networks is: one network's, or the mean of both probabilities.
PREDICTIONS = ("first", "second", "mean")


@dataclasses.dataclass
class DataConfig:
    """Which slices and crops a network is trained on.

    Attributes:
      volume: path of a converted volume.
      other_volumes: paths of more volumes to train on: each batch has as many crops of each; of
        their labelled slices `num_train_slices` are taken, none is held out.
      structures: label images to learn, one output channel each.
      crop_size: side of a crop in pixels at training scale; 512 at 4x is the paper's 2048.
      empty_crop_probability: share of crops drawn from positions without the structure.
      z_range: first slice and one past the last that training may see; (0, 0) is the volume.
      train_slices: slices to train on; if empty, `num_train_slices` chooses.
      num_train_slices: number of evenly spaced labelled slices to train on; 0 takes all that are
        not held out.
      val_slices: labelled slices held out for validation; if empty, `num_val_slices` chooses.
      num_val_slices: number of evenly spaced labelled slices to hold out; 0 for none.
      memory_budget_gib: slices that take less GiB than this stay on the device; if they do not fit,
        crops are read from disk in advance; 0 is a quarter of the device's memory.
      cache_gib: GiB of decoded chunks that are kept while crops are read from disk, for labelled
        and for unlabelled slices each.
      exact_offsets: crops at any pixel of the full resolution, downsampled from there as the
        reference does; otherwise on the grid of the training scale, which is far faster.
    """

    volume: str = ""
    other_volumes: tuple[str, ...] = ()
    structures: tuple[str, ...] = ("nuclei",)
    crop_size: int = 512
    empty_crop_probability: float = 0.001
    z_range: tuple[int, int] = (0, 0)
    train_slices: tuple[int, ...] = ()
    num_train_slices: int = 0
    val_slices: tuple[int, ...] = ()
    num_val_slices: int = 1
    memory_budget_gib: float = 0.0
    cache_gib: float = 1.0
    exact_offsets: bool = False


@dataclasses.dataclass
class OptimizerConfig:
    """Adam or AdamW with gradient clipping and a learning-rate schedule.

    Attributes:
      name: the optimizer, `adam` or `adamw`, whose decay leaves out norms, biases, gates,
        position tables and queries.
      weight_decay: strength of the decay of `adamw`.
      learning_rate: the highest rate (`base` of the schedules).
      schedule: `warmup_poly` (clean warm-up and decay), `reference` (what the reference's
        optimizer really runs at, step by step), `constant`, or `plateau` (a tenth of the rate
        whenever the validation loss stops falling).
      plateau_patience: validations without a better loss before `plateau` drops the rate.
      plateau_threshold: relative improvement that counts as better.
      plateau_drops: times the rate may drop.
      warmup_steps: length of the linear warm-up of `warmup_poly`.
      power: exponent of the polynomial decay of `warmup_poly`.
      clip_norm: largest global L2 norm of the gradient; 0 does not clip.
    """

    name: str = "adam"
    weight_decay: float = 0.01
    learning_rate: float = 1e-3
    schedule: str = "warmup_poly"
    plateau_patience: int = 15
    plateau_threshold: float = 1e-5
    plateau_drops: int = 2
    warmup_steps: int = 100
    power: float = 1.0
    clip_norm: float = 1.0


@dataclasses.dataclass
class TrainConfig:
    """Length and rhythm of a training run.

    Attributes:
      batch_size: crops per step.
      steps: optimizer steps.
      seed: decides the initial weights, the crops and the augmentation.
      precision: type of activations and products: `float32`, `bfloat16`, or `float16` with a
        dynamic loss scale; parameters, statistics and losses stay float32.
      log_every: steps between lines of the log.
      eval_every: steps between validations; 0 for none before the end.
      checkpoint_every: steps between checkpoints.
      steps_per_dispatch: steps that the device is given at once; 0 is 1 on CPUs and 10 elsewhere.
      devices: number of devices that share each batch; 0 takes as many as share it evenly.
    """

    batch_size: int = 8
    steps: int = 4000
    seed: int = 0
    precision: str = "float32"
    log_every: int = 20
    eval_every: int = 500
    checkpoint_every: int = 500
    steps_per_dispatch: int = 0
    devices: int = 0


@dataclasses.dataclass
class LossConfig:
    """What is minimised.

    Attributes:
      name: the loss: `soft_dice`, `dice_coef` (soft Dice with smoothing 1), `fractal_tanimoto`
        (of the segmentation, and of boundary and distance where the network predicts them) or
        `senformer`.
      depth: depth of the similarity of `fractal_tanimoto`.
      depth_per_drop: number added to `depth` each time the learning rate drops on a plateau.
    """

    name: str = "soft_dice"
    depth: int = 0
    depth_per_drop: int = 10


@dataclasses.dataclass
class CPSConfig:
    """Cross Pseudo Supervision: two networks that teach each other on unlabelled slices.

    Half of each batch are labelled crops, half unlabelled ones. An epoch is `epoch_crops`
    labelled crops for each labelled slice.

    Attributes:
      method: `supervised` trains one network on labelled crops alone, `cps` two networks (Chen et
        al. 2021), `cps_cutmix` two on crops mixed of two (French et al. 2020).
      loss: against pseudo labels: `dice`, the loss of the labelled crops (Dice in the paper,
        Pagano et al. 2023; Tanimoto or SenFormer's where those are trained), or `cross_entropy`
        (Chen et al. 2021).
      on_labelled: teach on the labelled crops too, as both publications do.
      weight: weight of the losses against pseudo labels, at the end of the ramp.
      ramp_start: epoch up to which that weight is 1e-5.
      ramp_first: weight at which the ramp begins then (the reference's Dice variant of SenFormer
        has 0.01).
      ramp_end: epoch from which it is `weight`; linear between.
      ramp: `epoch` changes the weight between epochs (the reference), `step` at every step.
      epoch_crops: labelled crops per labelled slice in an epoch.
      statistics: `reference` passes batches through BatchNorm one by one, in the reference's
        order; `merged` joins them where it can: fewer, larger convolutions.
      prediction: what predicts of a trained pair: `first` (the reference), `second` or `mean` of
        both.
      collapse_steps: steps in a row in which a network finds nothing before a warning.
      vmapped: both networks in one vmapped pass, for comparison: far slower.
    """

    method: str = "supervised"
    loss: str = "dice"
    on_labelled: bool = True
    weight: float = 1.0
    ramp_start: float = 5.0
    ramp_first: float = 1e-5
    ramp_end: float = 20.0
    ramp: str = "epoch"
    epoch_crops: int = 64
    statistics: str = "reference"
    prediction: str = "first"
    collapse_steps: int = 100
    vmapped: bool = False


@dataclasses.dataclass(unsafe_hash=True)
class ModelConfig:
    """What every network has. Each has a dataclass of its own with what it adds, see `models`.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels.
      exclusive: the classes exclude each other, background first: softmax. Otherwise each is a
        sigmoid of its own. A field only of networks that leave the choice.
    """

    in_channels: int = 1
    num_classes: int = 1
    # Without annotation it is no field.
    exclusive = False


@dataclasses.dataclass
class ExperimentConfig:
    """One training run: network, data, loss, optimizer and schedule of work."""

    model: ModelConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    cps: CPSConfig = dataclasses.field(default_factory=CPSConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def is_pair(config: ExperimentConfig) -> bool:
    """Whether two networks teach each other."""
    return config.cps.method != "supervised"


def check_config(config: ExperimentConfig) -> None:
    """Raises InputError naming the first field whose value cannot be used.

    Fields are looked at alone, together, and as the network that they make.
    """
    # Networks check themselves, and their modules come after this one.
    from vemseg_jax.config_check import check

    check(config)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numpy's numbers as the dicts, lists and numbers that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def completed(old: Any, new: Any) -> Any:
    """A plain configuration with the fields it lacks, of an earlier version, as in `new`."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return old
    return {key: completed(old.get(key, value), value) for key, value in new.items()} | {
        key: value for key, value in old.items() if key not in new
    }


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """`field: old -> new` for every leaf in which two plain configurations differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        found = [differences(old.get(k), new.get(k), f"{prefix}{k}.") for k in keys]
        return [line for lines in found for line in lines]
    return [] if old == new else [f"{prefix.removesuffix('.')}: {old!r} -> {new!r}"]
