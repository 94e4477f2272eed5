"""Two networks that teach each other: the step itself. Its numbers: `tests.parity.cps`."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_models import CLASSES, SMALL
from vemseg_jax.config import LossConfig, OptimizerConfig
from vemseg_jax.data.crops.cutmix import draw_masks
from vemseg_jax.data.crops.input_pipeline import Batch
from vemseg_jax.models import pair, registry, torch_import
from vemseg_jax.models.initial import initial_variables
from vemseg_jax.models.layers import BatchNorm
from vemseg_jax.train.cps import CPSRule, cps_step, pseudo_labels
from vemseg_jax.train.objective import make_cross_entropy, make_objective
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.plateau import Plateau
from vemseg_jax.train.semi_supervised import CollapseWatch, create_pair_state
from vemseg_jax.train.state import TrainState

OPTIMIZER = create_optimizer(OptimizerConfig(schedule="constant"), steps=10)
SIZE = 16


class _Small(nn.Module):
    """Without batch statistics, how crops are grouped into passes does not matter."""

    normed: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Conv(4, (3, 3), name="a")(image)
        x = nn.relu(BatchNorm()(x, train=train) if self.normed else x)
        logits = nn.Conv(1, (3, 3), name="b")(x)
        return {"prob": nn.sigmoid(logits), "logits": logits}


def _rule(loss="soft_dice", *, exclusive=False, cutmix=False, **options):
    objective = make_objective(LossConfig(name=loss), exclusive=exclusive, most_drops=0)
    return CPSRule(
        supervised=objective, cross=objective, cutmix=cutmix, exclusive=exclusive, **options
    )


def _crops(seed, count=4, classes=1, size=SIZE):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, size, size, 1)).astype(np.float32)
    target = np.repeat(image > 0.3, classes, -1).astype(np.float32)
    ones = np.ones_like(image)
    return Batch(image=image, target=target, valid=np.ones_like(target), seen=ones)


def _step(model, rule, *, state=None, labelled=None, unlabelled=None, weight=1.0, size=SIZE):
    state = state or create_pair_state(model, OPTIMIZER, seed=0, channels=1)
    labelled = labelled or _crops(1, size=size)
    unlabelled = unlabelled or dataclasses.replace(_crops(2, size=size), target=None, valid=None)
    mask = draw_masks(jax.random.key(0), 4, (size, size)) if rule.cutmix else None
    if rule.cutmix and not rule.on_labelled:
        mask = mask[:2]

    def run(state):
        return cps_step(
            state,
            labelled,
            unlabelled,
            model=model,
            rule=rule,
            optimizer=OPTIMIZER,
            weight=jnp.asarray(weight),
            mask=mask,
            seed=0,
        )

    return jax.jit(run)(state)


def _close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("cutmix", [False, True])
def test_vmapped_and_unrolled_pair_agree(cutmix):
    rules = [_rule(cutmix=cutmix, vmapped=vmapped) for vmapped in (False, True)]
    (one, first), (other, second) = (_step(_Small(normed=True), rule) for rule in rules)
    _close(first, second, rtol=1e-4, atol=1e-6)
    _close(one.batch_stats, other.batch_stats, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cutmix", [False, True])
def test_merged_passes_change_nothing_but_batch_statistics(cutmix):
    rules = [_rule(cutmix=cutmix, merged=merged) for merged in (False, True)]
    (_, first), (_, second) = (_step(_Small(), rule) for rule in rules)
    _close(first, second, rtol=1e-4, atol=1e-6)
    (one, _), (other, _) = (_step(_Small(normed=True), rule) for rule in rules)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.batch_stats, other.batch_stats)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_networks_differ_and_each_is_clipped_and_moved_by_itself():
    state = create_pair_state(_Small(), OPTIMIZER, seed=0, channels=1)
    first, second = (pair.network(state.params, n) for n in (0, 1))
    assert np.any(first["a"]["kernel"] != second["a"]["kernel"])
    alone = initial_variables(_Small(), seed=0, channels=1)["params"]
    _close(first, alone, rtol=0)
    # At weight 0 network 1 learns as if it were alone.
    after, metrics = _step(_Small(), _rule(), state=state, weight=0.0)
    other = jax.tree.map(lambda x: x.at[1].multiply(3.0), state.params)
    changed = dataclasses.replace(state, params=other)
    again, scaled = _step(_Small(), _rule(), state=changed, weight=0.0)
    _close(pair.network(after.params, 0), pair.network(again.params, 0), rtol=1e-6)
    assert metrics["grad_norm_2"] != scaled["grad_norm_2"]
    assert metrics["grad_norm"] == max(metrics["grad_norm_1"], metrics["grad_norm_2"])


@pytest.mark.parametrize("cutmix", [False, True])
def test_labelled_crops_can_be_left_out_of_the_cross_loss(cutmix):
    rule = _rule(cutmix=cutmix, on_labelled=False)
    _, metrics = _step(_Small(), rule)
    _, other = _step(_Small(), rule, labelled=_crops(7))
    assert metrics["cross_1"] == other["cross_1"]
    assert metrics["supervised_1"] != other["supervised_1"]


def test_ignored_pixels_teach_nothing():
    labelled, unlabelled = _crops(1), _crops(2)
    blind = [dataclasses.replace(x, seen=np.zeros_like(x.seen)) for x in (labelled, unlabelled)]
    _, metrics = _step(_Small(), _rule(cutmix=True), labelled=blind[0], unlabelled=blind[1])
    assert metrics["cross_1"] == metrics["cross_2"] == 0
    assert metrics["pseudo_foreground_1"] == 0 and metrics["pseudo_empty_1"] == 1
    _, seen = _step(_Small(), _rule(cutmix=True), labelled=labelled, unlabelled=unlabelled)
    assert seen["cross_1"] > 0 and seen["pseudo_foreground_1"] > 0


def test_pseudo_labels_are_what_is_likelier():
    prob = jnp.asarray([0.4, 0.5, 0.6])[None, None, :, None]
    np.testing.assert_array_equal(pseudo_labels(prob, exclusive=False)[0, 0, :, 0], [0, 0, 1])
    classes = jnp.asarray([[0.4, 0.35, 0.25], [0.3, 0.36, 0.34], [0.1, 0.2, 0.7]])[None, None]
    labels = pseudo_labels(classes, exclusive=True)[0, 0]
    np.testing.assert_array_equal(labels, [[0, 0], [1, 0], [0, 1]])
    slope = jax.grad(lambda p: jnp.sum(pseudo_labels(p, exclusive=False) * p))(prob)
    np.testing.assert_array_equal(slope, pseudo_labels(prob, exclusive=False))


def test_cross_entropy_is_the_textbooks():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 4, 4, 3)), jnp.float32)
    target = (rng.random((2, 4, 4, 3)) > 0.5).astype(np.float32)
    valid = np.ones_like(target)
    valid[0] = 0
    batch = Batch(image=None, target=target, valid=valid)
    found = make_cross_entropy(exclusive=False)({"logits": logits}, batch, 0)["loss"]
    prob = jax.nn.sigmoid(logits)[1]
    expected = -(target[1] * np.log(prob) + (1 - target[1]) * np.log(1 - prob)).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    structures = dataclasses.replace(
        batch, target=np.eye(4)[rng.integers(0, 4, (2, 4, 4))][..., 1:].astype(np.float32)
    )
    logits = jnp.concatenate([logits, logits[..., :1] + 1], -1)
    found = make_cross_entropy(exclusive=True)({"logits": logits}, structures, 0)["loss"]
    background = 1 - structures.target.sum(-1, keepdims=True)
    right = np.concatenate([background, structures.target], -1)[1]
    expected = -(right * np.log(jax.nn.softmax(logits)[1])).sum(-1).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_takes_a_step(name):
    options = SMALL[name] | ({"depth": 1, "psp_depth": 1} if "depth" in SMALL[name] else {})
    config = registry.model_config(name, num_classes=2 + (name in CLASSES), **options)
    model, exclusive = registry.create_model(config), config.exclusive
    losses = {"senformer": "senformer", "fractal_resnet": "fractal_tanimoto"}
    rule = _rule(losses.get(name, "soft_dice"), exclusive=exclusive, cutmix=True)
    # Only shapes: that the numbers are right does not depend on the network.
    shapes = torch_import.variable_shapes(config)
    variables = {name: shapes.get(name, {}) for name in ("params", "batch_stats")}
    variables = jax.eval_shape(pair.join, variables, variables)
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        **variables,
        opt_state=jax.eval_shape(jax.vmap(OPTIMIZER.init), variables["params"]),
        plateau=Plateau.start(),
    )
    labelled, unlabelled = _crops(1, classes=2, size=32), _crops(2, size=32)
    after, metrics = jax.eval_shape(
        lambda state: _step(
            model, rule, state=state, labelled=labelled, unlabelled=unlabelled, size=32
        ),
        state,
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.shape, y.shape), after, state)
    assert all(x.shape == () for x in metrics.values())


def test_boundary_and_distance_follow_the_pseudo_labels():
    least = {"depth": 1, "psp_depth": 1, "attention_depth": 1}
    config = registry.model_config("fractal_resnet", **SMALL["fractal_resnet"] | least)
    state, metrics = _step(registry.create_model(config), _rule("fractal_tanimoto"), size=32)
    assert np.isfinite(metrics["loss"]) and 0 < metrics["cross_1"] < 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_a_network_that_finds_nothing_is_warned_of(caplog):
    watch = CollapseWatch(3)
    found = [0.1, 0, 0, 0.2, 0, 0, 0, 0]
    with caplog.at_level("WARNING", logger="absl"):
        for step, value in enumerate(found, 1):
            watch(step, {"pseudo_foreground_1": 0.3, "pseudo_foreground_2": value})
    assert [record.getMessage()[:21] for record in caplog.records] == ["step 7: network 2 has"]
