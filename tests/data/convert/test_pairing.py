from pathlib import Path

import numpy as np
import pytest

from vemseg_jax.data.convert.pairing import (
    count_labels,
    describe_gaps,
    match_by_trailing_number,
    pair_by_number,
    trailing_number,
)
from vemseg_jax.errors import InputError

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "dataset_item.npz"
FOLDER = Path("masks")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("A45.60Tile3.tif", "3"),
        ("C089.1.Big_Nucl004.png", "004"),
        ("notes7b.tif", None),
        ("slice_12.TIF", "12"),
        ("slice_12.TIFF", "12"),
        ("a.60.tif", "60"),
        ("x3.ome.tif", None),
        ("nothing.tif", None),
        ("0007.tif", "0007"),
        ("x_5", "5"),
        ("z12_5nm.tif", None),
        (".tif", None),
        ("a5..tif", None),
        ("a 9.tif", "9"),
    ],
)
def test_trailing_number(name, number):
    assert trailing_number(name) == number


def test_match_compares_text_and_keeps_order():
    images = ["b_12.tif", "a_012.TIF", "c.tif", "d_3.tif", "e_03.tif"]
    labeled, unlabeled = match_by_trailing_number(images, ["l012.tif", "l.tif", "l_3.png"])
    assert labeled == ["a_012.TIF", "d_3.tif"]
    assert unlabeled == ["b_12.tif", "c.tif", "e_03.tif"]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the golden files are not beside the project")
def test_match_agrees_with_reference():
    golden = np.load(REFERENCE, allow_pickle=False)
    images, targets = golden["match/images"].tolist(), golden["match/targets"].tolist()
    labeled, unlabeled = match_by_trailing_number(images, targets)
    assert labeled == golden["match/labeled"].tolist()
    assert unlabeled == golden["match/unlabeled"].tolist()


def test_the_numbers_of_ome_files_are_before_both_endings():
    images = ["s_Z001.ome.tif", "s_Z002.OME.TIFF", "s_Z003.ome.tif"]
    pairs = pair_by_number(images, ["m_003.tif", "m_002.ome.tif"], folder=FOLDER)
    assert pairs == {1: "m_002.ome.tif", 2: "m_003.tif"}


def test_pairs_by_number_not_by_position():
    images = ["s_2.tif", "s_3.tif", "s_10.tif"]
    pairs = pair_by_number(images, ["m_10.tif", "m_3.tif"], folder=FOLDER)
    assert pairs == {1: "m_3.tif", 2: "m_10.tif"}


def test_stack_pages_pair_as_integers():
    names = ["m_003.tif", "m_11.tif"]
    assert pair_by_number(12, names, folder=FOLDER) == {3: "m_003.tif", 11: "m_11.tif"}
    assert pair_by_number(12, names, folder=FOLDER, first=1) == {2: "m_003.tif", 10: "m_11.tif"}
    with pytest.raises(InputError, match=r"m_012.*from 0 to 11"):
        pair_by_number(12, ["m_012.tif"], folder=FOLDER)


@pytest.mark.parametrize(
    ("names", "given", "first", "why"),
    [
        (["m_0000.tif", "m_0005.tif"], None, 0, "0 is one of them"),
        (["stack-0001.tif", "stack-0012.tif"], None, 1, "the last slice is 12"),
        (["m_1.tif", "m_5.tif"], 1, 1, "--first_slice=1"),
        (["m_1.tif", "m_5.tif"], 0, 0, "--first_slice=0"),
    ],
)
def test_numbers_tell_how_they_count(names, given, first, why):
    count = count_labels(12, names, given, folder=FOLDER)
    assert (count.first, count.why) == (first, why)


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (
            ["m_1.tif", "m_5.tif"],
            None,
            r"m_1\.tif may be slice z=1 or z=0; give --first_s",
        ),
        (["m_0.tif", "m_12.tif"], None, "m_12.tif has the number 12 beside one with 0"),
        (["m_3.tif", "m_13.tif"], None, "m_13.tif has the number 13, which is no slice"),
        (["m_0.tif", "m_5.tif"], 1, "with --first_slice=1 slices have the numbers 1 to 12"),
        (["m_1.tif", "m_12.tif"], 0, "with --first_slice=0 slices have the numbers 0 to 11"),
        (["m_1.tif", "mask.tif"], None, r"mask\.tif: no number"),
    ],
)
def test_numbers_that_fit_both_ways_are_refused(names, given, message):
    with pytest.raises(InputError, match=message):
        count_labels(12, names, given, folder=FOLDER)


# What programs and people call copies, and what looks alike and is none.
@pytest.mark.parametrize("name", ["slice_4-1.tif", "s_4 copy 2.tif", "m_0004_v2.tif", "4 2.tif"])
@pytest.mark.parametrize("beside", [[], ["m_8.tif", "m_10.tif"]])
def test_copies_are_not_other_slices(name, beside):
    with pytest.raises(InputError, match=r"may be the label of slice 0*4 or of slice [12]"):
        count_labels(12, [name, *beside], None, folder=FOLDER)
    images = [f"i_{z}.tif" for z in range(12)]
    if "0004" not in name:
        with pytest.raises(InputError, match="both numbers are slices"):
            pair_by_number(images, [name, *beside], folder=FOLDER)


@pytest.mark.parametrize("name", ["slice_0004 copy.tif", "s_4 (2).tif", "Substack (3-9).tif"])
def test_names_that_end_with_no_number(name):
    with pytest.raises(InputError, match="no number at the end of its name"):
        count_labels(12, [name], None, folder=FOLDER)


@pytest.mark.parametrize(
    "names",
    [
        ["C1-stack0000.tif"],
        ["week2_0000.tif", "week2_0007.tif"],
        ["cell7-0.tif", "cell7-3.tif", "cell7-5.tif"],
        ["em_2048-0.tif"],
        ["a_4-4.tif", "a_0-0.tif"],
    ],
)
def test_numbers_of_samples_and_channels_are_no_rivals(names):
    assert count_labels(12, names, None, folder=FOLDER).first == 0


def test_names_of_images_settle_which_number_counts():
    images = [f"vol3_{z}.tif" for z in range(12)]
    assert pair_by_number(images, ["vol3_4.tif"], folder=FOLDER) == {4: "vol3_4.tif"}
    assert pair_by_number(images, ["mask3_4.tif"], folder=FOLDER) == {4: "mask3_4.tif"}
    with pytest.raises(InputError, match="slice 5 or of slice 4"):
        pair_by_number(images, ["mask5_4.tif"], folder=FOLDER)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a_1.tif", "a_2.tif"], ["m_1.tif", "n_1.tif"], r"n_1\.tif.*m_1\.tif"),
        (["a_1.tif", "b_1.tif"], ["m_1.tif"], r"b_1\.tif: a_1\.tif has the number 1 too"),
        (["a_1.tif"], ["m_2.tif"], r"m_2\.tif: no image has its number '2'"),
        (["a_1.tif"], ["m.tif"], r"m\.tif: no number"),
        (["a_012.tif"], ["m_12.tif"], r"a_012\.tif has '012'.*digit by digit.*--labels_csv"),
        (["a.tif"], ["m_12.tif"], r"no image has one \(a\.tif\)"),
    ],
)
def test_ambiguous_pairing_is_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        pair_by_number(images, labels, folder=FOLDER)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([1, 2, 4, 26], "3, 5-25 missing"),
        ([0, 10, 20], None),
        ([0, 10, 30], "20 missing"),
        ([1, 2, 3], None),
        ([5], None),
        ([1, 2, 1], "do not rise"),
    ],
)
def test_gaps(numbers, text):
    found = describe_gaps([f"s_{n}.tif" for n in numbers])
    assert found is None if text is None else text in found


def test_gaps_among_some_slices():
    names = [f"s_{n}.tif" for n in (1, 2, 4, 26, 27)]
    assert describe_gaps(names, range(0, 1)) is None
    assert describe_gaps(names, range(0, 2)) is None
    assert "gaps: 5-25 missing" in str(describe_gaps(names, range(2, 5)))
