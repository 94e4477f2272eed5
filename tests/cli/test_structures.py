import pytest

from vemseg_jax.cli.structures import labelled_slices, one_of, values_above_0, whole_numbers
from vemseg_jax.errors import InputError

EMPTY = ("empty", "none")


def test_one_flag_or_several():
    both = {"nuclei": (1, 2), "nucleoli": (2,)}
    assert values_above_0(["nuclei=1+2,nucleoli=2"]) == both
    assert values_above_0(["nuclei=1+2", " nucleoli = 2 "]) == both
    assert values_above_0(["nuclei=any"]) == {"nuclei": "any"}
    numbers = whole_numbers(["255,nuclei=-1+7", "m=others"], flag="f", example="", word="others")
    assert numbers == {"": (255,), "nuclei": (-1, 7), "m": "others"}
    assert one_of(["empty", "nuclei=none"], EMPTY, flag="f") == {"": "empty", "nuclei": "none"}
    assert labelled_slices(["nuclei=0:2,7", "m=3"]) == {"nuclei": (0, 1, 7), "m": (3,)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: values_above_0(["1+2"]), "--label_values=1[+]2: must be like"),
        (lambda: values_above_0(["nuclei=0"]), "nuclei=0: must be once per structure"),
        (lambda: values_above_0(["nuclei=-1"]), "nuclei=-1: must be once per structure"),
        (lambda: values_above_0(["n=1", "n=2"]), "n is given twice; join values by [+]"),
        (lambda: whole_numbers(["a=x"], flag="f", example="3"), "--f=a=x: must be whole numbers"),
        (lambda: whole_numbers(["a="], flag="f", example="3"), "such as nuclei=3, or 3 for all"),
        (lambda: whole_numbers(["3", "4"], flag="f", example="3"), "given twice for all"),
        (lambda: one_of(["n=1"], EMPTY, flag="f"), "--f=n=1: must be empty or none"),
        (lambda: labelled_slices(["n=1", "n=2"]), "n is given twice"),
    ],
)
def test_what_cannot_be_meant(call, message):
    with pytest.raises(InputError, match=message):
        call()
