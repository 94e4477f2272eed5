import pytest

from vemseg_jax.config import DataConfig
from vemseg_jax.data.crops.split import evenly_spaced, split_slices
from vemseg_jax.errors import InputError


def _split(labelled, **options):
    return split_slices(labelled, DataConfig(volume="v", **options))


def test_evenly_spaced_holds_both_ends():
    assert evenly_spaced(range(150), 7) == (0, 25, 50, 74, 99, 124, 149)
    assert evenly_spaced(range(5), 1) == (2,)
    assert evenly_spaced([3, 9], 2) == (3, 9)


def test_range_and_count_choose_training_slices():
    split = _split(range(195), z_range=(0, 150), num_train_slices=7, num_val_slices=0)
    assert split.train == (0, 25, 50, 74, 99, 124, 149)
    assert split.val == ()


def test_held_out_slices_lie_inside_and_never_train():
    split = _split(range(0, 70, 10), num_val_slices=2)
    assert split.val == (10, 50)
    assert split.train == (0, 20, 30, 40, 60)
    both = _split(range(100), num_train_slices=7, num_val_slices=3)
    assert len(both.train) == 7 and len(both.val) == 3
    assert not set(both.train) & set(both.val)


def test_explicit_slices_are_taken_as_given():
    split = _split([1, 2, 3, 4], train_slices=(4, 1), val_slices=(2,))
    assert split.train == (1, 4) and split.val == (2,)


@pytest.mark.parametrize(
    "labelled, options, message",
    [
        ([1, 2], {"train_slices": (1, 7)}, r"train_slices names slices without a label: \[7\]"),
        ([1, 2], {"train_slices": (1,), "val_slices": (1,)}, r"slices \[1\] are in both"),
        ([1, 2], {"z_range": (5, 9)}, "holds no labelled slice"),
        ([1, 2], {"num_train_slices": 3}, "num_train_slices is 3, but 2 labelled slices"),
        ([1], {}, "num_val_slices is 1, but only 0 of the labelled slices"),
    ],
)
def test_what_cannot_be_chosen_is_refused(labelled, options, message):
    with pytest.raises(InputError, match=message):
        _split(labelled, **options)
