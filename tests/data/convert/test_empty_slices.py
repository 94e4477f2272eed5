import numpy as np
import pytest

from vemseg_jax.data.convert.empty_slices import LabelContent, doubtful

DEPTH, SIDE = 48, 60


def _balls(*balls):
    """`[z, y, x]` bool of balls `(z, y, x, radius)`, in voxels."""
    z, y, x = np.mgrid[:DEPTH, :SIDE, :SIDE]
    inside = [(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < r**2 for a, b, c, r in balls]
    return np.logical_or.reduce(inside)


TISSUE = _balls((5, 20, 20, 16), (20, 40, 40, 14), (36, 20, 30, 18), (44, 50, 50, 9))
NUCLEUS = _balls((24, 30, 30, 18))
NUCLEOLI = _balls((3, 10, 10, 5), (14, 40, 40, 6), (28, 38, 42, 5), (41, 12, 30, 6))


def _why(stack, painted=None, labelled=None):
    content = LabelContent()
    for z in range(len(stack)) if labelled is None else labelled:
        mask = stack[z] if painted is None or z in painted else 0 * stack[z]
        content.add(z, mask, known=mask.size)
    return doubtful(content)


@pytest.mark.parametrize("stack", [TISSUE, NUCLEUS, NUCLEOLI])
def test_structures_end_as_they_do(stack):
    assert not stack.any((1, 2)).all() or stack is TISSUE
    assert _why(stack) is None
    # Thicker slices of the same.
    assert _why(stack[::2]) is None
    assert _why(stack[1::3]) is None


PAINTED = {
    **{f"every {step}": range(1, DEPTH, step) for step in (2, 3, 4, 5, 7, 10, 20)},
    **{f"slice {z}": [z] for z in (0, 24, DEPTH - 1)},
    "irregular": [2, 9, 11, 30, 31, 40, 45],
    "block": range(20, 28),
    "first": range(30),
    "last": range(25, DEPTH),
    "pairs": [z for z in range(DEPTH) if z % 8 < 2],
    "threes": [z for z in range(DEPTH) if z % 9 < 3],
    "one forgotten": [z for z in range(DEPTH) if z != 21],
    "three forgotten": [z for z in range(DEPTH) if z not in (21, 22, 23)],
}


@pytest.mark.parametrize("painted", PAINTED.values(), ids=PAINTED)
@pytest.mark.parametrize("stack", [TISSUE, NUCLEUS])
def test_painted_slices_are_found_at_any_spacing(stack, painted):
    if any(stack[z].any() for z in painted):
        assert _why(stack, painted) is not None


def test_labels_of_single_slices_raise_no_doubt():
    assert _why(TISSUE, (0, 8, 24), labelled=(0, 8, 16, 24, 40)) is None
    # Two empty ones beside each other are nothing to compare with.
    assert _why(NUCLEUS, (24,), labelled=(0, 1, 24, 46, 47)) is None


def test_nothing_empty_or_nothing_painted():
    assert _why(TISSUE) is None
    assert _why(TISSUE, ()) is None


def test_content_is_thinned():
    content = LabelContent()
    mask = np.zeros((900, 1200), bool)
    mask[100:300] = True
    assert content.add(3, mask, known=5) == mask.sum()
    assert content.coarse[3].nbytes < 900 * 1200 / 8 / 20
    assert (content.painted, content.empty) == ((3,), ())
