from vemseg_jax.train.plateau import Plateau, observe

OPTIONS = {"patience": 2, "threshold": 1e-2, "most_drops": 2}


def _after(losses):
    plateau = Plateau.start()
    drops = []
    for loss in losses:
        plateau = observe(plateau, loss, **OPTIONS)
        drops.append(int(plateau.drops))
    return drops


def test_rate_drops_after_more_than_the_patience():
    assert _after([1.0, 1.0, 1.0, 1.0]) == [0, 0, 0, 1]


def test_an_improvement_starts_the_count_again():
    assert _after([1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9]) == [0, 0, 0, 0, 0, 0, 1]


def test_an_improvement_below_the_threshold_is_none():
    assert _after([1.0, 0.995, 0.995, 0.995]) == [0, 0, 0, 1]


def test_drops_end_and_the_least_loss_is_forgotten():
    # After a drop a worse loss is the new least one: only what follows counts against it.
    assert _after([1.0, 2.0, 2.0, 2.0, 5.0, 4.0, 4.0, 4.0]) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert _after([1.0] * 12)[-1] == 2


def test_a_loss_that_is_no_number_is_no_improvement():
    assert _after([float("nan")] * 3) == [0, 0, 1]
