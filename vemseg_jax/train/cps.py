"""One step of Cross Pseudo Supervision (CPS), with or without CutMix.

Source: Chen et al. 2021, "Semi-supervised semantic segmentation with cross pseudo supervision",
with Dice losses and on labelled crops too, as Pagano et al. 2023 use it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vemseg_jax.data.crops.cutmix import halves, mix, views
from vemseg_jax.data.crops.input_pipeline import Batch
from vemseg_jax.losses.dice import hard_dice
from vemseg_jax.models import pair
from vemseg_jax.parallel import Network
from vemseg_jax.train.loss_scale import scaled, unscaled
from vemseg_jax.train.state import TrainState
from vemseg_jax.train.supervised import Metrics, Objective
from vemseg_jax.train.update import advance

Outputs = dict[str, jax.Array]
BOTH = (0, 1)


@dataclasses.dataclass(frozen=True)
class CPSRule:
    """How the two networks teach each other.

    Attributes:
      supervised: loss of the labelled crops.
      cross: loss against the other network's pseudo labels.
      cutmix: teach on crops mixed of two.
      on_labelled: teach on the labelled crops too, not on the unlabelled ones alone.
      merged: as few and as wide passes as possible, so that BatchNorm sees labelled and
        unlabelled crops (both views, with CutMix) as one batch; the reference takes them one
        by one.
      exclusive: the network's classes exclude each other, background first.
      vmapped: both networks in one vmapped pass: for comparison, it is far slower.
    """

    supervised: Objective
    cross: Objective
    cutmix: bool
    on_labelled: bool = True
    merged: bool = False
    exclusive: bool = False
    vmapped: bool = False


class Passes:
    """Passes of both networks one after the other; batch statistics move with each."""

    def __init__(self, model: Network, rule: CPSRule, stats: tuple, key: jax.Array):
        self._model, self._rule, self._key = model, rule, key
        self.stats, self._count = stats, 0

    def __call__(self, params: tuple, image: jax.Array) -> list[Outputs]:
        """Outputs of both networks in train mode."""
        keys = jax.random.split(jax.random.fold_in(self._key, self._count), 2)
        self._count += 1
        if self._rule.vmapped:
            outputs, stats = jax.vmap(self._one, (0, 0, None, 0))(
                pair.join(*params), pair.join(*self.stats), image, keys
            )
            self.stats = tuple(pair.network(stats, n) for n in BOTH)
            return [pair.network(outputs, n) for n in BOTH]
        done = [self._one(params[n], self.stats[n], image, keys[n]) for n in BOTH]
        self.stats = tuple(stats for _, stats in done)
        return [outputs for outputs, _ in done]

    def _one(self, params: Any, stats: Any, image: jax.Array, key: jax.Array) -> tuple:
        outputs, updated = self._model.apply(
            {"params": params, "batch_stats": stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return outputs, updated.get("batch_stats", {})


def pseudo_labels(prob: jax.Array, *, exclusive: bool) -> jax.Array:
    """What a network teaches: `[b, h, w, c]` probabilities to 0 or 1 for each structure.

    A probability above 0.5; with exclusive classes the likeliest one, without the background's
    channel. No gradient flows through.
    """
    if not exclusive:
        return (jax.lax.stop_gradient(prob) > 0.5).astype(jnp.float32)
    return jax.nn.one_hot(prob.argmax(-1), prob.shape[-1])[..., 1:]


# Images and where they count, `[b, s, s, 1]` each.
_Crops = tuple[jax.Array, jax.Array]
# Outputs for labelled crops and for taught ones, teachers' probabilities, the taught crops.
_Passed = tuple[list[Outputs], list[Outputs], list[jax.Array], _Crops]


def _joined(*trees: Any) -> Any:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *trees)


def cross_passes(
    rule: CPSRule, run: Passes, params: tuple, labelled: _Crops, unlabelled: _Crops
) -> _Passed:
    """Without CutMix: each network is taught on what the other one says of the same crops."""
    count = labelled[0].shape[0]
    crops = _joined(labelled, unlabelled)
    if rule.merged:
        all_crops = run(params, crops[0])
    else:
        parts = run(params, labelled[0]), run(params, unlabelled[0])
        all_crops = [_joined(*outputs) for outputs in zip(*parts, strict=True)]
    supervised = [jax.tree.map(lambda x: x[:count], outputs) for outputs in all_crops]
    if rule.on_labelled:
        students = all_crops
    else:
        students = [jax.tree.map(lambda x: x[count:], outputs) for outputs in all_crops]
        crops = unlabelled
    return supervised, students, [outputs["prob"] for outputs in students], crops


def cutmix_passes(
    rule: CPSRule,
    run: Passes,
    params: tuple,
    labelled: _Crops,
    unlabelled: _Crops,
    mask: jax.Array,
) -> _Passed:
    """With CutMix: students see crops mixed of two views, teachers each view."""
    pairs = zip(labelled if rule.on_labelled else (None, None), unlabelled, strict=True)
    (image_a, image_b), (seen_a, seen_b) = (views(*pair) for pair in pairs)
    fixed = jax.lax.stop_gradient(params)
    if rule.merged:
        probs = [halves(x["prob"]) for x in run(fixed, jnp.concatenate([image_a, image_b]))]
    else:
        outputs = run(fixed, image_a), run(fixed, image_b)
        probs = [(a["prob"], b["prob"]) for a, b in zip(*outputs, strict=True)]
    mixed = mix(image_a, image_b, mask)
    students = run(params, mixed)
    supervised = run(params, labelled[0])
    taught = [mix(a, b, mask) for a, b in probs]
    return supervised, students, taught, (mixed, mix(seen_a, seen_b, mask))


def _watch(taught: list[jax.Array], seen: jax.Array) -> Metrics:
    """Metrics that show whether the networks collapse, see `train.semi_supervised`."""
    taught = [labels * seen for labels in taught]
    metrics = {"agreement": hard_dice(*taught)}
    for number, labels in enumerate(taught, 1):
        metrics[f"pseudo_foreground_{number}"] = labels.mean()
        metrics[f"pseudo_empty_{number}"] = jnp.mean(labels.sum((1, 2, 3)) == 0)
    return metrics


def cps_step(
    state: TrainState,
    labelled: Batch,
    unlabelled: Batch,
    *,
    model: Network,
    rule: CPSRule,
    optimizer: optax.GradientTransformation,
    weight: jax.Array,
    mask: jax.Array | None,
    seed: int,
) -> tuple[TrainState, Metrics]:
    """Forward, losses, backward, clip and update of both networks: a pure function.

    loss = supervised_1 + supervised_2 + weight (cross_1 + cross_2), where cross_1 is the loss of
    network 1 against the pseudo labels of network 2. With CutMix the pseudo labels of a mixed
    crop are those of the two views it is mixed of, mixed by the same box; the teachers' passes
    take part in the batch statistics but not in the gradient. Passes follow each other in the
    reference's order: labelled, unlabelled; or view a, view b, mixed, labelled.

    Args:
      state: before the step; leaves of both networks stacked, see `models.pair`.
      labelled: crops with labels.
      unlabelled: as many crops of slices nobody labelled; `target` and `valid` are not looked at.
      model: the network.
      rule: losses and how the networks teach each other.
      optimizer: of one network; clips and updates each by itself.
      weight: of the cross losses, a scalar (`train.schedules.consistency_ramp`).
      mask: with CutMix `[b, s, s, 1]`, 1 inside the boxes, b mixed crops; without, None.
      seed: of what is dropped at random; with the state's step it decides it all.

    Returns:
      The next state, and float32 scalars: `loss`; for both networks `supervised_`, `cross_`,
      `grad_norm_` (before clipping), `pseudo_foreground_` (share of pixels, all structures),
      `pseudo_empty_` (share of crops without any) followed by 1 or 2; `agreement`, the Dice of
      the two networks' pseudo labels; `weight`; `grad_norm`, the larger of the two; for float16
      those of `train.update.advance` too, a step is skipped for both.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), state.step)
    drops = state.plateau.drops

    def loss_of(params: tuple) -> tuple[jax.Array, Any]:
        stats = tuple(pair.network(state.batch_stats, n) for n in BOTH)
        run = Passes(model, rule, stats, key)
        sources = ((labelled.image, labelled.seen), (unlabelled.image, unlabelled.seen))
        if rule.cutmix:
            assert mask is not None
            passed = cutmix_passes(rule, run, params, *sources, mask)
        else:
            passed = cross_passes(rule, run, params, *sources)
        supervised, students, probs, (image, seen) = passed
        taught = [pseudo_labels(prob, exclusive=rule.exclusive) for prob in probs]
        metrics = _watch(taught, seen)
        metrics["weight"] = weight
        loss = jnp.zeros(())
        for n in BOTH:
            valid = jnp.broadcast_to(seen, taught[n].shape)
            lesson = Batch(image=image, target=taught[1 - n], valid=valid, seen=seen)
            own = rule.supervised(supervised[n], labelled, drops)["loss"]
            cross = rule.cross(students[n], lesson, drops)["loss"]
            metrics |= {f"supervised_{n + 1}": own, f"cross_{n + 1}": cross}
            loss = loss + own + weight * cross
        aux = {"loss": loss, **metrics}, pair.join(*run.stats)
        return scaled(loss, state.loss_scale), aux

    params = tuple(pair.network(state.params, n) for n in BOTH)
    (_, (metrics, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    grads = unscaled(grads, state.loss_scale)
    norms = [optax.tree.norm(each) for each in grads]
    metrics |= {f"grad_norm_{n + 1}": norms[n] for n in BOTH}
    metrics["grad_norm"] = jnp.maximum(*norms)
    update = jax.vmap(optimizer.update)
    following, more = advance(state, pair.join(*grads), batch_stats, update=update)
    return following, metrics | more
