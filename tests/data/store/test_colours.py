import itertools

import pytest

from vemseg_jax.data.store.colours import ALIKE, PAIRS, _nearest, colour_of, unlike


@pytest.mark.parametrize("name", ["nuclei", "nucleoli", "mitochondria", "golgi", "ER", "a", "Kern"])
def test_a_prediction_does_not_look_like_its_structure(name):
    drawn, predicted = colour_of(name), colour_of(f"{name}_pred")
    assert _nearest(drawn, [predicted]) > 2 * ALIKE
    assert predicted == colour_of(f"{name}_prob") == colour_of(f"{name}_disagreement")


def test_the_usual_structures_and_their_predictions_are_all_told_apart():
    names = ("nuclei", "nucleoli", "nuclei_pred", "nucleoli_pred")
    for a, b in itertools.combinations(map(colour_of, names), 2):
        assert _nearest(a, [b]) > ALIKE


def test_two_blues_are_alike():
    blue, sky = (0, 114, 178), (86, 180, 233)
    assert unlike(blue, []) == blue
    assert unlike(sky, [blue]) not in (blue, sky)


def test_many_labels_are_told_apart():
    taken = []
    for _ in range(8):
        # The same colour recorded in all of them, as older versions did.
        taken.append(unlike((0, 114, 178), taken))
    for a, b in itertools.combinations(taken, 2):
        assert _nearest(a, [b]) > 20
    assert len({colour for pair in PAIRS for colour in pair}) == 2 * len(PAIRS)
