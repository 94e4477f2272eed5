"""The training loop: it only orchestrates step, validation, checkpoints and log."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
from absl import logging

from vemseg_jax.checkpoint import BEST, LATEST, Checkpoints
from vemseg_jax.config import ExperimentConfig, check_config
from vemseg_jax.data.split import Split
from vemseg_jax.data.volume import Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.metric_writer import MetricWriter
from vemseg_jax.models import registry
from vemseg_jax.progress import Meter, clock
from vemseg_jax.train.plateau import observe
from vemseg_jax.train.setup import (
    Run,
    claim,
    describe,
    load,
    mean_score,
    optimizer_item,
    prepare,
)
from vemseg_jax.train.state import TrainState, parameter_count, to_host


def train(config: ExperimentConfig, workdir: Path, *, tensorboard: bool = False) -> TrainState:
    """Trains a network; started again with the same arguments it continues where it was.

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
    """
    check_config(config)
    volume = open_volume(config.data.volume)
    split, loaded = load(volume, config)
    description = describe(config, volume, split)
    claim(workdir, config)
    with Checkpoints(workdir) as checkpoints:
        run = prepare(config, description, loaded, checkpoints)
        first = int(run.state.step)
        _announce(run, volume, split, first)
        writer = MetricWriter(workdir, first_step=first, tensorboard=tensorboard)
        try:
            _loop(run, writer)
        finally:
            writer.close()
        return to_host(run.state)


def _announce(run: Run, volume: Volume, split: Split, first: int) -> None:
    config, device = run.config, jax.devices()[0]
    networks = run.description.networks
    logging.info(
        "%s%s, %s parameters, %s, on %s",
        "two networks that teach each other, each " if networks == 2 else "",
        registry.model_name(config.model),
        f"{parameter_count(run.state.params) // networks:,}",
        config.train.precision,
        f"{jax.device_count()} x {device.device_kind}",
    )
    logging.info(
        "%s: %s, structures %s, training slices %s, held-out slices %s",
        volume.path,
        " x ".join(map(str, volume.shape)),
        ", ".join(config.data.structures),
        list(split.train),
        list(split.val) or "none",
    )
    if first:
        logging.info("continuing after step %d of %d", first, config.train.steps)


def _loop(run: Run, writer: MetricWriter) -> None:
    options = run.config.train
    first = int(run.state.step)
    pending: list[tuple[int, dict[str, jax.Array]]] = []
    meter = Meter(options.batch_size)
    val_dice: dict[str, float] = {}
    for step in range(first, options.steps):
        run.state, metrics = run.step(run.state, run.planes, run.sampler(step))
        done = step + 1
        pending.append((done, metrics))
        last = done == options.steps
        log = last or done % options.log_every == 0
        validate = run.validate and (
            last or (options.eval_every and done % options.eval_every == 0)
        )
        save = last or done % options.checkpoint_every == 0
        if not (log or validate or save):
            continue
        values = _collect(pending, run)
        meter.add(len(pending))
        pending.clear()
        if log:
            rate, left = meter.rate(), meter.left(options.steps - done)
            writer.write(done, {**values, "crops_per_second": round(rate, 3)})
            logging.info(
                "step %d/%d (%d %%)  loss %.4f  %.3g crops/s  %s left",
                done,
                options.steps,
                100 * done // options.steps,
                values["loss"],
                rate,
                clock(left),
            )
        if validate:
            val_dice = _validate(run, done, writer)
            meter.pause()
        if save:
            _save(run, LATEST, done, val_dice)
            meter.pause()


def _collect(pending: list[tuple[int, dict[str, jax.Array]]], run: Run) -> dict[str, float]:
    """Means over the steps since the last log; refuses to go on when a loss is no number."""
    values = jax.device_get([metrics for _, metrics in pending])
    for (done, _), metrics in zip(pending, values, strict=True):
        if not all(np.isfinite(value) for value in metrics.values()):
            found = f"loss {metrics['loss']} and gradient norm {metrics['grad_norm']}"
            raise _diverged(found, done, run.checkpoints)
        if run.watch is not None:
            run.watch(done, metrics)
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def _diverged(found: str, done: int, checkpoints: Checkpoints) -> InputError:
    kept = checkpoints.step(LATEST)
    return InputError(
        f"{found} at step {done}: not finite; lower --config.optimizer.learning_rate or use "
        "--config.train.precision=float32 (the last good checkpoint, "
        f"{'none yet' if kept is None else f'step {kept}'}, is kept)"
    )


def _validate(run: Run, done: int, writer: MetricWriter) -> dict[str, float]:
    assert run.validate is not None
    validation = run.validate(run.state.variables)
    val_dice = validation.dice
    score = mean_score(val_dice)
    better = score > run.best
    # nan (nothing to find on any held-out slice) has no place in JSON.
    val_dice = {k: v for k, v in val_dice.items() if not math.isnan(v)}
    values = {f"val_dice_{name}": value for name, value in val_dice.items()}
    writer.write(done, {**values, "val_loss": validation.loss})
    logging.info(
        "step %d  validation 3D Dice %s%s",
        done,
        ", ".join(f"{name} {value:.4f}" for name, value in val_dice.items()) or "undefined",
        "  (best so far)" if better else "",
    )
    if better:
        run.best = score
        _save(run, BEST, done, val_dice)
    if run.config.optimizer.schedule == "plateau":
        _watch(run, done, validation.loss)
    return val_dice


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
    run.state = dataclasses.replace(run.state, plateau=plateau)
    if int(plateau.drops) > before:
        logging.info("step %d  validation loss on a plateau: learning rate / 10", done)


def _save(run: Run, which: str, done: int, val_dice: dict[str, float]) -> None:
    state = to_host(run.state)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables)):
        raise _diverged("weights or batch statistics", done, run.checkpoints)
    run.checkpoints.save(
        which,
        done,
        variables=state.variables,
        optimizer=optimizer_item(state) if which == LATEST else None,
        meta=run.description.to_meta(step=done, val_dice=val_dice),
    )
