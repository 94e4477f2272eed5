"""Everything a training run needs before its first step."""

import collections
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vemseg_jax.checkpoint import BEST, LATEST, Checkpoints
from vemseg_jax.config import ExperimentConfig, differences, is_pair
from vemseg_jax.data.crops.input_pipeline import labelled_planes
from vemseg_jax.data.crops.sources import Batches
from vemseg_jax.data.crops.split import Split
from vemseg_jax.data.store import lineage, normalization
from vemseg_jax.data.store.volume import TRAINING, Volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.trained import ADDED, Description, prediction_apply
from vemseg_jax.interrupts import StopRequest
from vemseg_jax.models import registry
from vemseg_jax.parallel import Placement, first_decides, of_first
from vemseg_jax.train.batches import z_range
from vemseg_jax.train.folder import plain_config
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.owed import OWED, Owed
from vemseg_jax.train.parts import (
    Step,
    initial_state,
    make_pair_step,
    make_supervised_step,
    repeated,
)
from vemseg_jax.train.ranking import SCORE, Score
from vemseg_jax.train.semi_supervised import CollapseWatch
from vemseg_jax.train.state import TrainState
from vemseg_jax.train.validate import Validation, make_validator

# Steps in one dispatch where a dispatch costs more than it does on a CPU.
ACCELERATOR_STEPS = 10


@dataclasses.dataclass
class Run:
    """The parts of one training run, ready to go."""

    config: ExperimentConfig
    description: Description
    step: Step
    steps: Step
    steps_per_dispatch: int
    placement: Placement
    batches: Batches
    validate: Callable[[dict], Validation] | None
    checkpoints: Checkpoints
    state: TrainState
    best: float
    watch: CollapseWatch | None = None
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    score: Score = dataclasses.field(default_factory=Score)
    owed: Owed = dataclasses.field(default_factory=Owed)


def describe(
    config: ExperimentConfig,
    volume: Volume,
    split: Split,
    others: Sequence[tuple[Volume, Split]] = (),
) -> Description:
    """What the checkpoints of this run will say of themselves."""
    places = [(volume, z_range(volume, config)), *((v, (0, v.shape[0])) for v, _ in others)]
    splits = [split, *(chosen for _, chosen in others)]
    return Description(
        model=config.model,
        structures=tuple(config.data.structures),
        crop_size=config.data.crop_size,
        downsample=volume.downsample,
        voxel_size=volume.voxel_size,
        normalization=normalization.of_volumes(places),
        precision=config.train.precision,
        train_slices=split.train,
        val_slices=split.val,
        volume=str(config.data.volume),
        fingerprint=volume.fingerprint,
        config=plain_config(config),
        networks=2 if is_pair(config) else 1,
        prediction=config.cps.prediction,
        other_volumes=tuple((each.fingerprint, chosen.train) for each, chosen in others),
        volume_normalizations=tuple(normalization.of_volumes([each]) for each in places)
        if others
        else (),
        identities=tuple(lineage.identity(each) for each, _ in places),
        marks=tuple(
            lineage.marks(each, [*chosen.train, *chosen.val])
            for (each, _), chosen in zip(places, splits, strict=True)
        ),
    )


def prepare(
    config: ExperimentConfig,
    description: Description,
    volume: Volume,
    batches: Batches,
    checkpoints: Checkpoints,
    placement: Placement,
    stop: StopRequest | None = None,
) -> Run:
    """Builds network, optimizer and compiled step; resumes from a checkpoint."""
    options, stop = config.train, stop or StopRequest()
    model = registry.create_model(config.model, dtype=options.precision)
    optimizer = create_optimizer(config.optimizer, steps=options.steps)
    validate = None
    if description.val_slices:
        # A damaged slice is found now, not after the first hours.
        collections.deque(
            labelled_planes(volume, description.structures, description.val_slices), maxlen=0
        )
        validate = make_validator(
            prediction_apply(model, description),
            lambda: stop.leaving(
                labelled_planes(volume, description.structures, description.val_slices)
            ),
            description.structures,
            size=volume.plane_shape(TRAINING),
            crop_size=config.data.crop_size,
            batch_size=options.batch_size,
            normalization=description.normalizations[0],
            exclusive=config.model.exclusive,
        )
    start = initial_state(config, model, optimizer)
    state, best, score, owed = first_decides(
        lambda: _resume(start, description, checkpoints),
        otherwise=(start, -math.inf, Score(), Owed()),
    )
    state = placement.whole(of_first(state))
    # All processes validate at the same steps: they agree on the learning rate after it.
    owed = dataclasses.replace(owed, validation=bool(of_first(np.asarray(owed.validation))))
    make = make_pair_step if is_pair(config) else make_supervised_step
    step = make(config, description, model, optimizer, placement)
    watch = CollapseWatch(config.cps.collapse_steps) if is_pair(config) else None
    return Run(
        config=config,
        description=description,
        step=step,
        steps=repeated(step),
        steps_per_dispatch=steps_per_dispatch(config, batches),
        placement=placement,
        batches=batches,
        validate=validate,
        checkpoints=checkpoints,
        state=state,
        best=best,
        watch=watch,
        stop=stop,
        score=score,
        owed=owed,
    )


def steps_per_dispatch(config: ExperimentConfig, batches: Batches) -> int:
    """How many steps the device is given at once: one on a CPU and where crops are streamed."""
    given = config.train.steps_per_dispatch
    if batches.streamed:
        return 1
    return given or (1 if jax.default_backend() == "cpu" else ACCELERATOR_STEPS)


def _resume(
    state: TrainState, description: Description, checkpoints: Checkpoints
) -> tuple[TrainState, float, Score, Owed]:
    """What the latest checkpoint holds, and the best score so far, if there are any."""
    if checkpoints.step(LATEST) is None:
        return state, -math.inf, Score(), Owed()
    meta = checkpoints.meta(LATEST)
    new = description.to_meta(step=meta["step"], val_dice=meta["val_dice"])
    # What a volume is known by follows from its fingerprint, and is not in older checkpoints.
    ignored = ("config", "version", "volume", "identities", "marks", SCORE, OWED)
    meta = {**ADDED, **meta}
    changed = differences(
        {k: v for k, v in meta.items() if k not in ignored},
        {k: v for k, v in json.loads(json.dumps(new)).items() if k not in ignored},
    )
    if changed:
        raise InputError(
            f"the checkpoint in --workdir was trained on another network or other data "
            f"({'; '.join(changed)}); choose a new --workdir"
        )
    variables, (opt_state, plateau, *loss_scale) = checkpoints.restore(
        LATEST, variables=state.variables, optimizer=optimizer_item(state)
    )
    state = TrainState(
        step=np.asarray(meta["step"], np.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=opt_state,
        plateau=plateau,
        loss_scale=loss_scale[0] if loss_scale else None,
    )
    best = -math.inf
    # A best checkpoint from beyond the resumed step is made again when that step comes.
    if checkpoints.step(BEST) is not None:
        found = Score.from_meta(checkpoints.meta(BEST), description.structures).value
        best = -math.inf if found is None else found
    score = Score.from_meta(meta, description.structures)
    return state, best, score, Owed.from_meta(meta)


def optimizer_item(state: TrainState) -> tuple[Any, ...]:
    """What a checkpoint holds beside the weights, so that training can go on."""
    scale = () if state.loss_scale is None else (state.loss_scale,)
    return state.opt_state, state.plateau, *scale
