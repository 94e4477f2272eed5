"""What is mixed with what. Boxes and masks: `tests.parity.cps`."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.config import CPSConfig
from vemseg_jax.data.crops.cutmix import mixing_order, views
from vemseg_jax.data.crops.input_pipeline import Planes
from vemseg_jax.data.crops.sampling import Crops
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.train import semi_supervised
from vemseg_jax.train.cps import CPSRule


def _views(count, *, labelled=True):
    """Positions in both views; unlabelled images count from 100."""
    first = jnp.arange(count) if labelled else None
    return [list(map(int, view)) for view in views(first, 100 + jnp.arange(count))]


@pytest.mark.parametrize(
    "count, view_a, view_b",
    [
        (2, [0, 100], [1, 101]),
        (3, [0, 100], [2, 101]),
        (4, [0, 1, 100, 101], [2, 3, 102, 103]),
        (5, [0, 1, 100, 101], [3, 4, 102, 103]),
        (7, [0, 1, 2, 100, 101, 102], [4, 5, 6, 103, 104, 105]),
    ],
)
def test_odd_halves_are_those_of_the_reference(count, view_a, view_b):
    assert _views(count) == [view_a, view_b]
    alone = [[n for n in view if n >= 100] for view in (view_a, view_b)]
    assert _views(count, labelled=False) == alone


@pytest.mark.parametrize("volumes, crops", [(2, 2), (2, 1), (3, 1), (2, 3)])
def test_volumes_are_mixed_in_every_direction(volumes, crops):
    count, steps = volumes * crops, jnp.arange(200)
    keys = jax.vmap(lambda step: jax.random.fold_in(jax.random.key(3), step))(steps)
    order = np.asarray(jax.vmap(lambda key: mixing_order(key, volumes, crops))(keys))
    assert (np.sort(order, axis=1) == np.arange(count)).all()
    found, half = order // crops, count // 2
    pairs = np.zeros((volumes, volumes), int)
    # The views of unlabelled crops, and of labelled ones.
    for second in (found[:, half : 2 * half], found[:, count - half :]):
        np.add.at(pairs, (found[:, :half], second), 1)
        for view in (found[:, :half], second):
            counts = (view[..., None] == np.arange(volumes)).sum(1)
            assert (counts.max(1) - counts.min(1)).max() <= 1
    across = ~np.eye(volumes, dtype=bool)
    assert pairs[across].min() > 0.6 * pairs[across].mean()
    if crops > 1:
        assert pairs.diagonal().min() > 0.5 * pairs.mean()


@flax.struct.dataclass
class _State:
    step: jax.Array


def _source(value, crops):
    zeros = np.zeros(crops, np.int32)
    planes = Planes(np.full((1, 6, 6), value, np.uint8), np.zeros((1, 6, 6, 1), np.uint8))
    return planes, Crops(zeros, np.zeros((crops, 2), np.int32), zeros)


def _batches(monkeypatch, planes, crops, steps):
    """The grey value of each labelled and each unlabelled image that the steps are given."""

    def cps_step(state, labelled, unlabelled, **_):
        values = [batch.image.mean((1, 2, 3)) for batch in (labelled, unlabelled)]
        return state, {"values": jnp.stack(values)}

    monkeypatch.setattr(semi_supervised, "cps_step", cps_step)
    step = semi_supervised.make_cps_step(
        None,
        None,
        config=CPSConfig(),
        rule=CPSRule(supervised=None, cross=None, cutmix=True),
        crop_size=4,
        epoch_steps=1,
        normalization=Normalization(0.0, 1.0, 1),
        seed=0,
    )
    run = [step(_State(jnp.int32(n)), (planes, planes), (crops, crops))[1] for n in range(steps)]
    return np.stack([np.asarray(metrics["values"]) for metrics in run])


def test_the_step_mixes_volumes_both_ways(monkeypatch):
    planes, crops = zip(_source(1, 2), _source(2, 2), strict=True)
    for found in np.moveaxis(_batches(monkeypatch, planes, crops, 40), 1, 0):
        pairs = {
            (int(a), int(b)) for order in found for a, b in zip(order[:2], order[2:], strict=True)
        }
        assert pairs == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_the_crops_of_one_volume_stay_in_their_order(monkeypatch):
    planes = Planes(
        np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8),
        np.zeros((4, 6, 6, 1), np.uint8),
    )
    zeros = np.zeros(4, np.int32)
    crops = Crops(np.arange(4, dtype=np.int32), np.zeros((4, 2), np.int32), zeros)
    found = _batches(monkeypatch, planes, crops, 3)
    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(4), found.shape))
