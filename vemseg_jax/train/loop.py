"""The training loop: it only orchestrates step, validation, checkpoints and log."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
from absl import logging

from vemseg_jax.accelerator import check_device
from vemseg_jax.checkpoint import BEST, LATEST, Checkpoints, NoCheckpoints
from vemseg_jax.config import ExperimentConfig, check_config, is_pair
from vemseg_jax.data.store.volume import Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.interrupts import Abandoned, Stopped, StopRequest
from vemseg_jax.metric_writer import MetricWriter, NoWriter
from vemseg_jax.models import registry
from vemseg_jax.parallel import first_decides, is_first, of_first, place
from vemseg_jax.paths import local_path
from vemseg_jax.progress import Meter, clock
from vemseg_jax.train.batches import find_split, make_batches, other_volumes
from vemseg_jax.train.folder import RunFolder
from vemseg_jax.train.owed import Owed
from vemseg_jax.train.plateau import observe
from vemseg_jax.train.ranking import Score
from vemseg_jax.train.record import is_diverged, split_steps, summary
from vemseg_jax.train.setup import Run, describe, optimizer_item, prepare
from vemseg_jax.train.state import TrainState, parameter_count, to_host
from vemseg_jax.train.volumes import with_absolute_volumes

# Dispatches that the device may have waiting: more would only make an interrupt wait for them.
AHEAD = 4
NOTICE = "stopping after this step, to save it; once more stops at once"


def train(config: ExperimentConfig, workdir: Path, *, tensorboard: bool = False) -> TrainState:
    """Trains a network; started again with the same arguments, it continues.

    Writes `config.json`, `log.jsonl` and `checkpoints/` into `workdir`.

    Args:
      config: the experiment.
      workdir: folder of the run; created if needed.
      tensorboard: also write TensorBoard event files.

    Returns:
      The final state, in host memory.

    Raises:
      InputError: a configuration or data that cannot be used, a folder that holds another
        run, or a loss that is no longer a number.
      Stopped: an interrupt, a KeyboardInterrupt; the step that was reached is saved.
    """
    check_config(config)
    check_device()
    config = with_absolute_volumes(config)
    workdir = local_path(workdir, flag="--workdir")
    volume = open_volume(config.data.volume)
    split, others = find_split(volume, config), other_volumes(volume, config)
    crops = config.train.batch_size // (2 if is_pair(config) else 1)
    placement = place(crops // (1 + len(others)), devices=config.train.devices)
    with (
        StopRequest(NOTICE if is_first() else "") as stop,
        make_batches(volume, config, split, placement, others) as batches,
        RunFolder(workdir, config) as folder,
    ):
        description = describe(config, volume, split, others)
        first_decides(folder.open, otherwise=None)
        with Checkpoints(workdir) if is_first() else NoCheckpoints() as checkpoints:
            run = prepare(config, description, volume, batches, checkpoints, placement, stop)
            return _run(run, folder, volume, tensorboard=tensorboard)


def _run(run: Run, folder: RunFolder, volume: Volume, *, tensorboard: bool) -> TrainState:
    first = int(run.state.step)
    _announce(run, volume, first)
    writer: MetricWriter = NoWriter()
    if is_first():
        writer = MetricWriter(
            folder.path,
            first_step=first,
            tensorboard=tensorboard,
            validates=run.owed.validation,
        )
    try:
        _loop(run, writer, folder)
    finally:
        writer.close()
    return to_host(run.state)


def _announce(run: Run, volume: Volume, first: int) -> None:
    config, device = run.config, jax.devices()[0]
    networks = run.description.networks
    logging.info(
        "%s%s, %s parameters, %s, on %s",
        "two networks that teach each other, each " if networks == 2 else "",
        registry.model_name(config.model),
        f"{parameter_count(run.state.params) // networks:,}",
        config.train.precision,
        f"{run.placement.devices} x {device.device_kind}",
    )
    logging.info(
        "%s: %s, structures %s, training slices %s, held-out slices %s",
        volume.path,
        " x ".join(map(str, volume.shape)),
        ", ".join(config.data.structures),
        list(run.description.train_slices),
        list(run.description.val_slices) or "none",
    )
    for path, (_, slices) in zip(
        run.config.data.other_volumes, run.description.other_volumes, strict=True
    ):
        logging.info("%s: training slices %s", path, list(slices))
    if first:
        logging.info("continuing after step %d of %d", first, config.train.steps)


def _loop(run: Run, writer: MetricWriter, folder: RunFolder) -> None:
    options = run.config.train
    first = done = int(run.state.step)
    pending: list[tuple[int, dict[str, jax.Array]]] = []
    meter = Meter(options.batch_size)
    run.stop.defer()
    if run.owed.validation:
        _validate(run, done, writer)
        _stop_if_asked(run, folder, done, pending)
        meter.pause()
    while done < options.steps:
        begun, done = done, _dispatch(run, done, pending)
        if begun == first:
            # What does not compile or fit into memory fails here, and has claimed no folder.
            jax.block_until_ready(pending[0][1])
            first_decides(folder.claim, otherwise=None)
        elif len(pending) > AHEAD:
            jax.block_until_ready(pending[-AHEAD][1])
        _do_what_is_due(run, done, pending, writer, meter)
        _stop_if_asked(run, folder, done, pending)
    if first == options.steps:
        first_decides(folder.claim, otherwise=None)


def _do_what_is_due(
    run: Run,
    done: int,
    pending: list[tuple[int, dict[str, jax.Array]]],
    writer: MetricWriter,
    meter: Meter,
) -> None:
    """Logs, validates and saves after the step that was just done."""
    options, last = run.config.train, done == run.config.train.steps
    log = last or done % options.log_every == 0
    validate = run.validate and (last or (options.eval_every and done % options.eval_every == 0))
    save = last or done % options.checkpoint_every == 0
    if not (log or validate or save):
        return
    steps = _collect(pending, run)
    pending.clear()
    meter.add(len(steps))
    values = summary([*run.owed.unlogged, *steps])
    run.owed = Owed()
    if log:
        rate, left = meter.rate(), meter.left(options.steps - done)
        writer.write(done, {**values, "crops_per_second": round(rate, 3)})
        logging.info(
            "step %d/%d (%d %%)  loss %.4f  %.3g crops/s  %s left%s",
            done,
            options.steps,
            100 * done // options.steps,
            values.get("loss", math.nan),
            rate,
            clock(left),
            _skipped(values),
        )
    if validate:
        _validate(run, done, writer)
        meter.pause()
    if save:
        _save(run, LATEST, done, run.score)
        meter.pause()


def _stop_if_asked(
    run: Run, folder: RunFolder, done: int, pending: list[tuple[int, dict[str, jax.Array]]]
) -> None:
    """Saves what was reached and ends, if somebody asked for it."""
    if not run.stop.reached(done):
        return
    steps = _collect(pending, run) if pending else []
    run.owed = Owed(run.owed.validation, (*run.owed.unlogged, *steps))
    _save(run, LATEST, done, run.score)
    raise Stopped(
        f"stopped after step {done} of {run.config.train.steps}, which is saved in {folder.path}"
    )


def _dispatch(run: Run, done: int, pending: list[tuple[int, dict[str, jax.Array]]]) -> int:
    """Sends the next step to the device, or several at once; returns the steps then done.

    Several end before whatever is due between steps, and begin at multiples of their number, so
    that a resumed run does the same.
    """
    count, options = run.steps_per_dispatch, run.config.train
    dues = (options.log_every, options.checkpoint_every, options.eval_every)
    stop = min([options.steps, *(done - done % due + due for due in dues if due)])
    if count == 1 or done % count or done + count > stop:
        run.state, metrics = run.step(run.state, *run.batches(done))
        pending.append((done, metrics))
        return done + 1
    run.state, metrics = run.steps(run.state, *run.batches.stacked(done, count))
    pending.append((done, metrics))
    return done + count


def _collect(
    pending: list[tuple[int, dict[str, jax.Array]]], run: Run
) -> list[dict[str, np.ndarray]]:
    """The metrics of each step since the last log; refuses to go on when a loss is no number."""
    steps = []
    for first, values in jax.device_get(pending):
        for done, metrics in enumerate(split_steps(values), int(first) + 1):
            if is_diverged(metrics):
                found = f"loss {metrics['loss']} and gradient norm {metrics['grad_norm']}"
                raise _diverged(found, done, run.checkpoints)
            if run.watch is not None and not metrics.get("skipped"):
                run.watch(done, metrics)
            steps.append(metrics)
    return steps


def _skipped(values: dict[str, float]) -> str:
    """For the log: how often float16 overflowed so far."""
    if not values.get("skipped_steps"):
        return ""
    count, scale = int(values["skipped_steps"]), values["loss_scale"]
    return f"  {count} steps skipped, loss scale {scale:g}"


def _diverged(found: str, done: int, checkpoints: Checkpoints) -> InputError:
    kept = checkpoints.step(LATEST)
    return InputError(
        f"{found} at step {done}: not finite; lower --config.optimizer.learning_rate or use "
        "--config.train.precision=float32 (the last good checkpoint, "
        f"{'none yet' if kept is None else f'step {kept}'}, is kept)"
    )


def _validate(run: Run, done: int, writer: MetricWriter) -> None:
    """Scores the network; a validation that is left is owed."""
    assert run.validate is not None
    try:
        validation = run.validate(run.placement.local(run.state.variables))
    except Abandoned:
        run.owed = Owed(validation=True)
        return
    run.owed = dataclasses.replace(run.owed, validation=False)
    run.score = score = Score.of(validation.dice)
    assert score.value is not None
    better = score.value > run.best
    values = {f"val_dice_{name}": value for name, value in score.dice.items()}
    writer.write(done, {**values, "val_loss": validation.loss})
    logging.info(
        "step %d  validation 3D Dice %s%s",
        done,
        ", ".join(f"{name} {value:.4f}" for name, value in score.dice.items()) or "undefined",
        "  (best so far)" if better else "",
    )
    if better:
        run.best = score.value
        _save(run, BEST, done, score)
    if run.config.optimizer.schedule == "plateau":
        _watch(run, done, validation.loss)


def _watch(run: Run, done: int, loss: float) -> None:
    """Lowers the learning rate when the validation loss has stopped falling."""
    options, before = run.config.optimizer, int(run.state.plateau.drops)
    plateau = observe(
        run.state.plateau,
        loss,
        patience=options.plateau_patience,
        threshold=options.plateau_threshold,
        most_drops=options.plateau_drops,
    )
    # One validation decides for every process: theirs could differ in the last digit.
    plateau = run.placement.whole(of_first(plateau))
    run.state = dataclasses.replace(run.state, plateau=plateau)
    if int(plateau.drops) > before:
        logging.info("step %d  validation loss on a plateau: learning rate / 10", done)


def _save(run: Run, which: str, done: int, score: Score) -> None:
    state = to_host(run.state)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables)):
        raise _diverged("weights or batch statistics", done, run.checkpoints)
    run.checkpoints.save(
        which,
        done,
        variables=state.variables,
        optimizer=optimizer_item(state) if which == LATEST else None,
        meta={
            **run.description.to_meta(step=done, val_dice=score.dice),
            **score.to_meta(),
            **(run.owed.to_meta() if which == LATEST else {}),
        },
    )
