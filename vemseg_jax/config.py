"""Experiment configuration: dataclasses, their checks, and their JSON form.

A file under `configs/` has a `get_config()` that returns an `ExperimentConfig`; every field can
be overridden on the command line (`--config.optimizer.learning_rate=1e-4`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vemseg_jax.errors import InputError

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
      crop_size: side of a crop in training-scale pixels; 512 at 4x is the study's 2048.
      empty_crop_probability: share of crops drawn from positions without the structure.
      z_range: first slice and one past the last that training may see; (0, 0) is the volume.
      train_slices: slices to train on; empty chooses by `num_train_slices`.
      num_train_slices: that many evenly spaced labelled slices; 0 takes all that are left.
      val_slices: labelled slices held out for validation; empty chooses by `num_val_slices`.
      num_val_slices: that many evenly spaced labelled slices, held out; 0 for none.
      memory_budget_gib: slices that take less live on the device, others are read as training
        goes; 0 is a quarter of the device's memory.
      cache_gib: of decoded chunks that are kept while crops are read, for labelled and for
        unlabelled slices each.
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
      name: `adam` or `adamw`, whose decay leaves out norms, biases, gates, position tables and
        queries.
      weight_decay: of `adamw`.
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
      seed: of the initial weights, the crops and the augmentation.
      precision: type of activations and products: `float32`, `bfloat16`, or `float16` with a
        dynamic loss scale; parameters, statistics and losses stay float32.
      log_every: steps between lines of the log.
      eval_every: steps between validations; 0 for none before the end.
      checkpoint_every: steps between checkpoints.
      steps_per_dispatch: that the device is given at once; 0 is 1 on CPUs and 10 elsewhere.
      devices: that share each batch; 0 takes as many as share it evenly.
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
      name: `soft_dice`, `dice_coef` (soft Dice with smoothing 1), `fractal_tanimoto` (of the
        segmentation, and of boundary and distance where the network predicts them) or
        `senformer`.
      depth: of `fractal_tanimoto`.
      depth_per_drop: added to it each time the learning rate drops on a plateau.
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
      loss: against pseudo labels: `dice`, the loss of the labelled crops (Dice in the study of
        Pagano et al. 2023; Tanimoto or SenFormer's where those are trained), or `cross_entropy`
        (Chen et al. 2021).
      on_labelled: teach on the labelled crops too, as both do.
      weight: of the losses against pseudo labels, at the end of the ramp.
      ramp_start: epoch up to which that weight is 1e-5.
      ramp_first: where the ramp begins then (the reference's Dice variant of SenFormer has 0.01).
      ramp_end: epoch from which it is `weight`; linear between.
      ramp: `epoch` changes the weight between epochs (the reference), `step` at every step.
      epoch_crops: labelled crops per labelled slice in an epoch.
      statistics: `reference` passes batches through BatchNorm one by one, in the reference's
        order; `merged` joins them where it can: fewer, larger convolutions.
      prediction: of a trained pair: `first` (the reference), `second` or `mean` of both.
      collapse_steps: steps in a row after which a network that finds nothing is warned of.
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


@dataclasses.dataclass
class ExperimentConfig:
    """One training run: network, data, loss, optimizer and schedule of work."""

    model: Any
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    cps: CPSConfig = dataclasses.field(default_factory=CPSConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def is_pair(config: ExperimentConfig) -> bool:
    """Whether two networks teach each other."""
    return config.cps.method != "supervised"


def _require(condition: bool, field: str, found: Any, right: str) -> None:
    if not condition:
        raise InputError(f"--config.{field} is {found!r}; it must be {right}")


def check_config(config: ExperimentConfig) -> None:
    """Raises InputError naming the first field whose value cannot be used."""
    data, optimizer, train = config.data, config.optimizer, config.train
    _require(bool(data.volume), "data.volume", data.volume, "the path of a converted volume")
    _require(bool(data.structures), "data.structures", data.structures, "at least one label name")
    repeated = len(set(data.structures)) < len(data.structures)
    _require(not repeated, "data.structures", data.structures, "names that differ")
    _require(data.crop_size >= 16, "data.crop_size", data.crop_size, "at least 16 pixels")
    probability = data.empty_crop_probability
    _require(0 <= probability < 1, "data.empty_crop_probability", probability, "in [0, 1)")
    low_high = tuple(data.z_range)
    ordered = len(low_high) == 2 and (low_high == (0, 0) or 0 <= low_high[0] < low_high[1])
    _require(ordered, "data.z_range", data.z_range, "(first, one past the last), first < last")
    _check_others(config)
    classes = getattr(config.model, "num_classes", None)
    exclusive = getattr(config.model, "exclusive", False)
    right = f"{len(data.structures) + exclusive}, one for each of --config.data.structures"
    right += " and one for the background" if exclusive else ""
    fits = classes == len(data.structures) + exclusive
    _require(fits, "model.num_classes", classes, right)
    _check_loss(config)
    _check_cps(config)
    for name in ("num_train_slices", "num_val_slices", "memory_budget_gib", "cache_gib"):
        _require(getattr(data, name) >= 0, f"data.{name}", getattr(data, name), "at least 0")
    rate = optimizer.learning_rate
    _require(rate > 0, "optimizer.learning_rate", rate, "greater than 0")
    known = optimizer.schedule in SCHEDULES
    _require(known, "optimizer.schedule", optimizer.schedule, f"one of {', '.join(SCHEDULES)}")
    _require(optimizer.clip_norm >= 0, "optimizer.clip_norm", optimizer.clip_norm, "at least 0")
    warmup = optimizer.warmup_steps
    _require(warmup >= 0, "optimizer.warmup_steps", warmup, "at least 0")
    for name in ("batch_size", "steps", "log_every", "checkpoint_every"):
        _require(getattr(train, name) >= 1, f"train.{name}", getattr(train, name), "at least 1")
    for name in ("eval_every", "steps_per_dispatch", "devices"):
        _require(getattr(train, name) >= 0, f"train.{name}", getattr(train, name), "at least 0")
    known = train.precision in PRECISIONS
    _require(known, "train.precision", train.precision, f"one of {', '.join(PRECISIONS)}")


def _check_others(config: ExperimentConfig) -> None:
    data = config.data
    if not data.other_volumes:
        return
    found, right = data.other_volumes, "paths that differ from each other and from data.volume"
    differ = len({data.volume, *found}) == 1 + len(found)
    _require(differ, "data.other_volumes", found, right)
    for name, empty in (("z_range", (0, 0)), ("train_slices", ())):
        value = tuple(getattr(data, name))
        right = f"{empty} with data.other_volumes: slices are numbered in each volume"
        _require(value == empty, f"data.{name}", value, right)
    kinds = (2 if is_pair(config) else 1) * (1 + len(found))
    right = f"a multiple of {kinds}: as many crops of each volume"
    batch = config.train.batch_size
    _require(batch % kinds == 0, "train.batch_size", batch, right)


def _check_loss(config: ExperimentConfig) -> None:
    loss, optimizer = config.loss, config.optimizer
    _require(loss.name in LOSSES, "loss.name", loss.name, f"one of {', '.join(LOSSES)}")
    has_learners = hasattr(config.model, "branch_depth")
    if loss.name == "senformer":
        _require(has_learners, "loss.name", loss.name, "another one: the network has no learners")
    for name in ("depth", "depth_per_drop"):
        _require(getattr(loss, name) >= 0, f"loss.{name}", getattr(loss, name), "at least 0")
    known = optimizer.name in OPTIMIZERS
    _require(known, "optimizer.name", optimizer.name, f"one of {', '.join(OPTIMIZERS)}")
    decay = optimizer.weight_decay
    _require(decay >= 0, "optimizer.weight_decay", decay, "at least 0")
    for name in ("plateau_patience", "plateau_threshold", "plateau_drops"):
        found = getattr(optimizer, name)
        _require(found >= 0, f"optimizer.{name}", found, "at least 0")
    if optimizer.schedule == "plateau":
        data = config.data
        watched = bool(config.train.eval_every and (data.num_val_slices or data.val_slices))
        right = "another one: a plateau needs validation (train.eval_every, data.num_val_slices)"
        _require(watched, "optimizer.schedule", optimizer.schedule, right)


def _check_cps(config: ExperimentConfig) -> None:
    cps, batch = config.cps, config.train.batch_size
    choices = (
        ("method", METHODS),
        ("loss", CROSS_LOSSES),
        ("ramp", RAMPS),
        ("statistics", STATISTICS),
        ("prediction", PREDICTIONS),
    )
    for name, allowed in choices:
        found = getattr(cps, name)
        _require(found in allowed, f"cps.{name}", found, f"one of {', '.join(allowed)}")
    if cps.method == "supervised":
        return
    _require(cps.weight > 0, "cps.weight", cps.weight, "greater than 0")
    _require(cps.ramp_first > 0, "cps.ramp_first", cps.ramp_first, "greater than 0")
    _require(cps.ramp_start >= 0, "cps.ramp_start", cps.ramp_start, "at least 0")
    right = f"greater than cps.ramp_start ({cps.ramp_start:g})"
    _require(cps.ramp_end > cps.ramp_start, "cps.ramp_end", cps.ramp_end, right)
    for name in ("epoch_crops", "collapse_steps"):
        _require(getattr(cps, name) >= 1, f"cps.{name}", getattr(cps, name), "at least 1")
    _require(batch % 2 == 0, "train.batch_size", batch, "even: half labelled, half unlabelled")
    if cps.method == "cps_cutmix":
        _require(batch >= 4, "train.batch_size", batch, "at least 4: CutMix mixes pairs")


def plain(value: Any) -> Any:
    """Dataclasses and tuples as the dicts and lists that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


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
