import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.config import LossConfig
from vemseg_jax.data.crops.input_pipeline import Batch
from vemseg_jax.losses.dice import soft_dice_loss
from vemseg_jax.losses.tanimoto import fractal_tanimoto_loss
from vemseg_jax.train.objective import class_label, exclusive_batch, make_objective, targets_of


def _batch(structures=1, seed=0):
    rng = np.random.default_rng(seed)
    target = np.zeros((2, 16, 16, structures), np.float32)
    target[:, 3:12, 4:11] = 1
    valid = (rng.random((2, 16, 16, structures)) > 0.2).astype(np.float32)
    return Batch(image=np.zeros((2, 16, 16, 1), np.float32), target=target, valid=valid)


def _prob(seed, shape=(2, 16, 16, 1)):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def test_exclusive_targets_prefer_the_structure_named_last():
    batch = _batch(2)
    batch.target[:, 6:8, 6:8, 0] = 1
    batch.target[..., 1] = 0
    batch.target[:, 6:8, 6:8, 1] = 1
    found = exclusive_batch(batch)
    assert found.target.shape == (2, 16, 16, 3) and found.valid.shape == (2, 16, 16, 1)
    np.testing.assert_array_equal(found.target.sum(-1), 1)
    np.testing.assert_array_equal(found.target[0, 7, 7], [0, 0, 1])
    np.testing.assert_array_equal(found.target[0, 3, 4], [0, 1, 0])
    np.testing.assert_array_equal(found.target[0, 0, 0], [1, 0, 0])
    label = class_label(found)
    ignored = batch.valid.min(-1) == 0
    np.testing.assert_array_equal(label == 255, ignored)
    np.testing.assert_array_equal(label[~ignored], found.target.argmax(-1)[~ignored])


def test_pixels_that_are_not_labelled_do_not_count():
    batch = _batch()
    prob = _prob(0)
    changed = jnp.where(batch.valid == 1, prob, 1 - prob)
    outputs = {"prob": prob, "boundary": prob, "distance": prob}
    other = {"prob": changed, "boundary": changed, "distance": changed}
    for name in ("soft_dice", "dice_coef", "fractal_tanimoto"):
        objective = make_objective(LossConfig(name=name), exclusive=False, most_drops=0)
        first, second = objective(outputs, batch, 0)["loss"], objective(other, batch, 0)["loss"]
        assert first == pytest.approx(float(second), abs=1e-6)


def test_multitask_loss_is_the_mean_of_its_parts():
    batch = _batch()
    outputs = {"prob": _prob(1), "boundary": _prob(2), "distance": _prob(3)}
    config = LossConfig(name="fractal_tanimoto", depth=3)
    found = make_objective(config, exclusive=False, most_drops=0)(outputs, batch, 0)
    targets = targets_of(batch)
    for task, prob in outputs.items():
        part = fractal_tanimoto_loss(prob, targets[task], depth=3, valid=batch.valid)
        assert found[f"loss_{task}"] == pytest.approx(float(part))
    assert found["loss"] == pytest.approx(float(np.mean([found[f"loss_{t}"] for t in outputs])))


def test_depth_grows_with_every_drop():
    batch, prob = _batch(), _prob(4)
    config = LossConfig(name="fractal_tanimoto", depth=1, depth_per_drop=4)
    objective = jax.jit(make_objective(config, exclusive=False, most_drops=2))
    for drops, depth in enumerate((1, 5, 9)):
        expected = fractal_tanimoto_loss(prob, batch.target, depth=depth, valid=batch.valid)
        found = objective({"prob": prob}, batch, jnp.int32(drops))["loss"]
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_every_branch_is_supervised():
    batch = _batch()
    logits = [jnp.log(_prob(n) + 0.1) for n in (5, 6)]
    outputs = {"prob": _prob(7), "branch_1": logits[0], "branch_2": logits[1]}
    found = make_objective(LossConfig(), exclusive=False, most_drops=0)(outputs, batch, 0)["loss"]
    parts = [soft_dice_loss(jax.nn.sigmoid(x), batch.target, valid=batch.valid) for x in logits]
    assert found == pytest.approx(float(np.mean(parts)))
