import pytest

from vemseg_jax.cli.by_structure import ALL, by_structure, parse_offsets
from vemseg_jax.data.convert import label_placing
from vemseg_jax.errors import InputError


def test_values_for_all_or_for_one():
    assert ALL == label_placing.ALL
    axes = by_structure(["zyx", "nuclei = xyz"], flag="labels_axes", example="zyx")
    assert axes == {ALL: "zyx", "nuclei": "xyz"}
    assert parse_offsets(["8,64, 64", "n=0,-1,2"]) == {ALL: (8, 64, 64), "n": (0, -1, 2)}
    assert parse_offsets([]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["8,64"], r"--labels_offset=8,64: must be three whole numbers"),
        (["8,64,6.5"], "must be three whole numbers"),
        (["n=a,b,c"], "must be three whole numbers"),
        (["n="], "must be like nuclei=8,64,64"),
        ([""], "must be like 8,64,64 or nuclei=8,64,64"),
        (["1,2,3", "0,0,0"], "--labels_offset=0,0,0: is given twice for all labels"),
        (["n=1,2,3", "n=0,0,0"], "is given twice for n; give it once"),
    ],
)
def test_bad_offsets(texts, message):
    with pytest.raises(InputError, match=message):
        parse_offsets(texts)
