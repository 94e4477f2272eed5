import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.losses.dice import hard_dice, soft_dice_loss


def _case(channels=1, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, 12, 10, channels)
    return jnp.asarray(rng.random(shape), jnp.float32), jnp.asarray(rng.random(shape) > 0.6)


def test_ignored_pixels_do_not_count():
    prob, target = _case()
    valid = jnp.ones(prob.shape).at[:, :, 5:].set(0)
    masked = soft_dice_loss(prob, target, valid=valid)
    np.testing.assert_allclose(masked, soft_dice_loss(prob[:, :, :5], target[:, :, :5]), rtol=1e-6)
    grad = jax.grad(lambda p: soft_dice_loss(p, target, valid=valid))(prob)
    assert not np.any(grad[:, :, 5:])
    assert np.all(grad[:, :, :5] != 0)


def test_channels_are_averaged():
    prob, target = _case(channels=3)
    each = [soft_dice_loss(prob[..., c : c + 1], target[..., c : c + 1]) for c in range(3)]
    np.testing.assert_allclose(soft_dice_loss(prob, target), np.mean(each), rtol=1e-6)


def test_sums_run_over_the_batch_not_per_image():
    prob, target = _case()
    target = target.at[0].set(False)
    per_image = np.mean([soft_dice_loss(prob[i : i + 1], target[i : i + 1]) for i in range(2)])
    assert abs(soft_dice_loss(prob, target) - per_image) > 0.01


def test_degenerate_batches_are_finite():
    zero, one = jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))
    assert soft_dice_loss(zero, zero) == 0
    assert soft_dice_loss(one, one) == 0
    np.testing.assert_allclose(soft_dice_loss(zero, one), 1, atol=1e-5)
    for target in (zero, one):
        assert np.all(np.isfinite(jax.grad(soft_dice_loss)(zero, target)))
    assert hard_dice(zero, zero) == 1


def test_sums_of_small_maps_are_as_exact_as_those_of_large_ones():
    errors = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        prob = rng.random((4, 32, 40, 1)).astype(np.float32)
        target = (rng.random(prob.shape) < 0.8).astype(np.float32)
        p, t = prob.astype(np.float64), target.astype(np.float64)
        right = 1 - (2 * (p * t).sum() + 1e-5) / (np.square(p).sum() + np.square(t).sum() + 1e-5)
        errors.append(abs(float(jax.jit(soft_dice_loss)(prob, target)) - right))
    # Added up number by number they are up to 9e-7 off.
    assert max(errors) < 2e-7
