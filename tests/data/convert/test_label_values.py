import numpy as np
import pytest

from vemseg_jax.data.convert.label_flags import LabelFlags, mask_rules
from vemseg_jax.data.convert.label_values import MOST_VALUES, MaskRule
from vemseg_jax.errors import InputError

PLANE = np.array([[0, 1, 2, 3]], np.int16)


def _rule(values=None, **options):
    return MaskRule("nuclei", values, **options)


def _refused(rule, plane, *parts):
    rule.mask(plane, "a.tif")
    doubt = rule.doubt("labels")
    assert doubt is not None
    assert "\n" not in doubt
    for part in parts:
        assert part in doubt
    return doubt


def test_binary_files_keep_one_value():
    rule = _rule()
    plane = np.array([[0, 255]], np.uint8)
    assert rule.mask(plane, "a").tolist() == [[0, 1]]
    assert rule.mask(0 * plane, "b").tolist() == [[0, 0]]
    assert rule.doubt("x") is None
    assert rule.record() == [255]
    _refused(rule, plane // 255, "0, 1 (16.7 %", "first in a.tif", "255 (16.7 %, first in a)")


def test_binary_files_with_a_mark():
    _refused(
        _rule(),
        np.array([[0, 1, 1, -1]], np.int16),
        "label values 0, -1 (25 % of the pixels, first in a.tif), 1 (50 %",
        "--label_values=nuclei=1 with --unlabelled_value=nuclei=-1 ",
        "or with --background_values=nuclei=-1",
    )
    doubt = _refused(_rule(), np.array([[-1, 0]], np.int8), "--unlabelled_value=nuclei=-1")
    assert "any" not in doubt
    for rule in (_rule(unlabelled=(-1,)), _rule(background=(-1,))):
        rule.mask(np.array([[0, 1, -1]], np.int16), "a")
        assert rule.doubt("x") is None


@pytest.mark.parametrize("mark", [255, -1])
def test_every_value_needs_a_meaning(mark):
    plane = np.array([[0, 1, 2, mark]], np.int16)
    flags = (f"--background_values=nuclei=2+{mark}", f"--unlabelled_value=nuclei=2+{mark}")
    flags = flags if mark > 0 else tuple(f.replace("2+-1", "-1+2") for f in flags)
    own = "--label_values=nuclei=1+2+255" if mark > 0 else "--label_values=nuclei=1+2 if"
    _refused(_rule((1,)), plane, "2 (25 %", f"{mark} (25 %", own, *flags)
    _refused(_rule((1, 2)), plane, f"label values {mark} (25 %")
    rule = _rule((1,), unlabelled=(mark,), background=(2,))
    assert rule.mask(plane, "a").tolist() == [[0, 1, 0, 255]]
    assert rule.doubt("x") is None
    assert rule.meanings() == f"value 1; background 0, 2; not labelled {mark}"
    rule = _rule((1,), background="others")
    assert rule.mask(plane, "a").tolist() == [[0, 1, 0, 0]]
    assert rule.doubt("x") is None


def test_any_value_asks_for_negative_ones():
    _refused(_rule("any"), np.array([[-1, 0, 7]], np.int32), "-1 (33.3 %", "_value=nuclei=-1")
    rule = _rule("any", unlabelled=(-1,), background=(7,))
    assert rule.mask(np.array([[-1, 0, 7, 8]], np.int32), "a").tolist() == [[255, 0, 0, 1]]
    assert (rule.doubt("x"), rule.warning()) == (None, None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64])
def test_any_value_warns_of_the_largest_of_its_type(dtype):
    top = np.iinfo(dtype).max
    for values, warns in (([0, 3, top], True), ([0, top], False), ([0, 1, top - 1, top], False)):
        rule = _rule("any")
        rule.mask(np.array([values], dtype), "a")
        assert (rule.warning() is not None) == warns
    rule = _rule("any", unlabelled=(int(top),))
    assert rule.mask(np.array([[0, 3, top]], dtype), "a").tolist() == [[0, 1, 255]]
    assert rule.warning() is None


def test_zero_may_be_what_nobody_labelled():
    rule = _rule((2,), unlabelled=(0,), background=(1,))
    assert rule.mask(PLANE[:, :3], "a").tolist() == [[255, 0, 1]]
    assert rule.doubt("x") is None
    # As ilastik exports: 1 is background, 2 the structure, 0 nothing.
    _refused(_rule((2,)), PLANE[:, 1:3], "label values 1 (50 %", "--background_values=nuclei=1")


def test_instances_are_not_listed():
    with pytest.raises(InputError, match=r"more than 64 values.*--label_values=nuclei=any"):
        _rule((1,)).mask(np.arange(2, MOST_VALUES + 4)[None], "a")
    many = np.arange(20)[None]
    doubt = _refused(_rule(), many, "and 11 more", "--label_values=nuclei=any")
    assert "+…" in doubt
    assert doubt.count("a.tif") == 1
    _refused(_rule((1,)), many, "--background_values=nuclei=others if")


def _rules(files, **flags):
    return mask_rules(files, LabelFlags(**flags))


def test_structures_of_the_same_files_know_of_each_other():
    files = {"nuclei": {"a", "b"}, "nucleoli": {"b"}, "other": {"c"}}
    rules = _rules(files, values={"nuclei": (1, 2), "nucleoli": (2,), "other": (9,)})
    assert rules["nuclei"].elsewhere == {}
    assert rules["nucleoli"].elsewhere == {1: "nuclei"}
    assert rules["nucleoli"].mask(PLANE[:, :3], "b").tolist() == [[0, 0, 1]]
    assert rules["nucleoli"].doubt("x") is None
    assert rules["nucleoli"].meanings() == "value 2; background 0, 1 (nuclei)"
    assert rules["other"].elsewhere == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"values": {"n": (1,)}, "unlabelled": {"n": 1}}, "value=n=1: --label_values has"),
        ({"background": {"": (3,)}, "unlabelled": {"n": (3,)}}, "--background_values has"),
        ({"background": {"n": "others"}}, "needs --label_values=n="),
        ({"background": {"m": (1,)}}, "no structure 'm'"),
    ],
)
def test_flags_that_contradict(flags, message):
    with pytest.raises(InputError, match=message):
        _rules({"n": {"a"}}, **flags)


def test_flags_for_all_structures():
    rules = _rules({"n": {"a"}, "m": {"a"}}, unlabelled={"": (255,), "m": 7})
    assert (rules["n"].unlabelled, rules["m"].unlabelled) == ((255,), (7,))
    with pytest.raises(InputError, match="needs labels"):
        _rules({}, unlabelled={"": 255})
