"""What a study compares, and the runs that it takes."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vemseg_jax.config import ExperimentConfig, is_pair, plain
from vemseg_jax.data.crops.split import evenly_spaced
from vemseg_jax.data.store import lineage
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.models import registry
from vemseg_jax.train.semi_supervised import steps_per_epoch


@dataclasses.dataclass(frozen=True)
class StudyVolume:
    """A volume by the name it has in tables.

    Attributes:
      name: in tables.
      path: of the converted volume.
      structures: with labels to score.
      note: what a reader of its scores has to know.
    """

    name: str
    path: Path
    structures: tuple[str, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train, by the name it has in tables.

    Attributes:
      name: such as "SSL-UNet++ + CutMix".
      config: network, loss, optimizer and length; data is filled in by the study.
      base: the method it would improve on; empty for a supervised one.
    """

    name: str
    config: ExperimentConfig
    base: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
      name: of the preset.
      volumes: each trained on by itself.
      budgets: numbers of labelled slices, evenly spaced.
      methods: see `Method`.
      seeds: of weights, crops and augmentation.
      joint: one network for all structures of a volume; otherwise one for each.
      across: also train on all volumes but one, and score that one (section 3.2 of the paper).
      across_budget: labelled slices of each volume then.
      across_methods: names of the methods that are.
      ramp_end: where in a run of fixed length the cross loss of a pair has its full weight, as a
        share of the steps (it starts to rise at a quarter of that); 0 leaves the epochs of the
        configuration, which last longer the more slices are labelled.
      prediction: "window" or "whole", as `--method` of `vemseg-predict`.
      steps_for: labelled slices that the steps of the configurations are meant for; a run takes
        more in proportion to the slices it has, so that it sees each as often. 0 leaves the steps.
      note: what a reader of its claims has to know.
    """

    name: str
    volumes: tuple[StudyVolume, ...]
    budgets: tuple[int, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0,)
    joint: bool = False
    across: bool = False
    across_budget: int = 7
    across_methods: tuple[str, ...] = ()
    ramp_end: float = 0.0
    prediction: str = "window"
    steps_for: int = 0
    note: str = ""

    def method(self, name: str) -> Method:
        """The method of a name."""
        return next(method for method in self.methods if method.name == name)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run and the volume that it is scored on.

    `trained_on` are names of volumes; the run is scored on `volume`. `structures` are learned
    together. `recipe` stands for how the method trains and predicts, so that studies which differ
    in it have predictions of other names on the same volume.
    """

    volume: str
    trained_on: tuple[str, ...]
    structures: tuple[str, ...]
    budget: int
    method: str
    seed: int
    recipe: str = ""

    @property
    def is_across(self) -> bool:
        """Whether the volume it is scored on took no part in training."""
        return self.volume not in self.trained_on

    @property
    def key(self) -> str:
        """A name for folders and labels, the same in every run."""
        short = _digest(dataclasses.asdict(self))
        where = "across" if self.is_across else self.volume
        plain_name = "".join(c if c.isalnum() else "_" for c in f"{where}_{self.method}".lower())
        return f"{plain_name}_{self.budget}_{self.seed}_{short}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]


def _recipes(study: Study) -> dict[str, str]:
    """By method, what its runs are made of."""
    shared = [study.prediction, study.ramp_end, *([study.steps_for] if study.steps_for else [])]
    return {m.name: _digest([_config_values(m.config), *shared]) for m in study.methods}


def cells(study: Study) -> Iterator[Cell]:
    """Every run of a study: seed by seed, so that an early stop leaves whole comparisons."""
    recipes = _recipes(study)
    for cell in _combinations(study):
        recipe = recipes[cell.method]
        if cell.is_across:
            # Earlier versions normalised all volumes by the statistics of the training ones.
            recipe = _digest([recipe, "each volume by its own statistics"])
        yield dataclasses.replace(cell, recipe=recipe)


def _combinations(study: Study) -> Iterator[Cell]:
    for seed in study.seeds:
        for volume in study.volumes:
            groups = [volume.structures] if study.joint else [(s,) for s in volume.structures]
            for structures in groups:
                for budget in study.budgets:
                    for method in study.methods:
                        yield Cell(
                            volume.name, (volume.name,), structures, budget, method.name, seed
                        )
        yield from _across(study, seed)


def _across(study: Study, seed: int) -> Iterator[Cell]:
    if not study.across:
        return
    for left_out in study.volumes:
        others = tuple(v.name for v in study.volumes if v is not left_out)
        shared = tuple(
            s for s in left_out.structures if all(s in v.structures for v in study.volumes)
        )
        for structures in [shared] if study.joint else [(s,) for s in shared]:
            for name in study.across_methods:
                yield Cell(left_out.name, others, structures, study.across_budget, name, seed)


def related_volumes(study: Study) -> Iterator[tuple[StudyVolume, StudyVolume, lineage.Relation]]:
    """Pairs of volumes that show the same images, or may do so, and why.

    Raises:
      InputError: no such volume.
    """
    known = [lineage.identity(open_volume(volume.path)) for volume in study.volumes]
    for (one, its), (other, others) in itertools.combinations(
        zip(study.volumes, known, strict=True), 2
    ):
        found = lineage.relation(its, others)
        if found is not None:
            yield one, other, found


def labelled_slices(volume: StudyVolume) -> list[int]:
    """z of the slices where every structure is labelled.

    Raises:
      InputError: no such volume or label.
    """
    opened = open_volume(volume.path)
    common = [set(opened.labelled_slices(name)) for name in volume.structures]
    return sorted(set.intersection(*common))


def training_slices(volume: StudyVolume, budget: int) -> tuple[int, ...]:
    """The evenly spaced slices of a label budget.

    Raises:
      InputError: the volume has fewer labelled slices than that and one to score.
    """
    labelled = labelled_slices(volume)
    if len(labelled) <= budget:
        raise InputError(
            f"{volume.path}: {len(labelled)} slices are labelled; a budget of {budget} leaves "
            "none to score, label more or lower --budgets"
        )
    return evenly_spaced(labelled, budget)


def scored_slices(study: Study, volume: StudyVolume) -> tuple[int, ...]:
    """Labelled slices that no run of any budget trains on: the same ones score them all.

    Raises:
      InputError: none is left.
    """
    budgets = {*study.budgets, *([study.across_budget] if study.across else [])}
    taken = {z for budget in budgets for z in training_slices(volume, budget)}
    left = tuple(z for z in labelled_slices(volume) if z not in taken)
    if not left:
        raise InputError(
            f"{volume.path}: the budgets {sorted(budgets)} take every labelled slice between "
            "them; leave one out or label more"
        )
    return left


def schedule(config: ExperimentConfig) -> str:
    """The learning rate's schedule in a study.

    A plateau needs a validation, and so a held-out slice, which the budget does not have.
    """
    chosen = config.optimizer.schedule
    return "warmup_poly" if chosen == "plateau" else chosen


def experiment(study: Study, cell: Cell) -> ExperimentConfig:
    """The configuration of a cell's training run."""
    volumes = {volume.name: volume for volume in study.volumes}
    first, *others = (volumes[name] for name in cell.trained_on)
    config = study.method(cell.method).config
    exclusive = config.model.exclusive
    model = dataclasses.replace(config.model, num_classes=len(cell.structures) + exclusive)
    slices: tuple[int, ...] = () if others else training_slices(first, cell.budget)
    data = dataclasses.replace(
        config.data,
        volume=str(first.path),
        z_range=(0, 0),
        other_volumes=tuple(str(volume.path) for volume in others),
        structures=cell.structures,
        train_slices=slices,
        num_train_slices=cell.budget if others else 0,
        val_slices=(),
        num_val_slices=0,
    )
    optimizer = dataclasses.replace(config.optimizer, schedule=schedule(config))
    slices_seen, steps = cell.budget * len(cell.trained_on), config.train.steps
    if study.steps_for:
        steps = round(steps * slices_seen / study.steps_for)
    train = dataclasses.replace(config.train, seed=cell.seed, eval_every=0, steps=steps)
    config = dataclasses.replace(config, model=model, data=data, optimizer=optimizer, train=train)
    if study.ramp_end and is_pair(config):
        epochs = steps / steps_per_epoch(config, slices_seen)
        end = study.ramp_end * epochs
        cps = dataclasses.replace(config.cps, ramp="step", ramp_start=end / 4, ramp_end=end)
        config = dataclasses.replace(config, cps=cps)
    return config


def describe(study: Study) -> dict[str, Any]:
    """The study as JSON values, to tell another one by."""
    values = plain(dataclasses.replace(study, methods=()))
    del values["note"]  # words, which no run depends on
    values["volumes"] = [
        {"name": v.name, "path": str(v.path), "structures": v.structures} for v in study.volumes
    ]
    values["methods"] = {
        method.name: {"base": method.base, **_config_values(method.config)}
        for method in study.methods
    }
    return json.loads(json.dumps(values, default=str))


def _config_values(config: ExperimentConfig) -> dict[str, Any]:
    return plain({**vars(config), "model": registry.model_to_dict(config.model)})
