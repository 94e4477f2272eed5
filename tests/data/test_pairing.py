from pathlib import Path

import numpy as np
import pytest

from vemseg_jax.data.pairing import (
    LabelFile,
    describe_gaps,
    match_by_trailing_number,
    pair_by_number,
    read_pairing,
    trailing_number,
)
from vemseg_jax.errors import InputError

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "dataset_item.npz"
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


def test_pairs_by_number_not_by_position():
    images = ["s_2.tif", "s_3.tif", "s_10.tif"]
    pairs = pair_by_number(images, ["m_10.tif", "m_3.tif"], folder=FOLDER)
    assert pairs == {1: "m_3.tif", 2: "m_10.tif"}


def test_stack_pages_pair_as_integers():
    assert pair_by_number(12, ["m_003.tif", "m_11.tif"], folder=FOLDER) == {
        3: "m_003.tif",
        11: "m_11.tif",
    }
    with pytest.raises(InputError, match=r"m_012.*from 0 to 11"):
        pair_by_number(12, ["m_012.tif"], folder=FOLDER)


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


def _csv(tmp_path, text):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    return path


def test_csv_by_name_and_by_slice(tmp_path):
    path = _csv(
        tmp_path,
        "\ufeffstructure, image, label\nnuclei,b.tif,m/1.tif\nnuclei,0,m/0.tif\nnucleoli,1,n.tif\n",
    )
    assert read_pairing(path, ["a.tif", "b.tif"]) == {
        "nuclei": [LabelFile(0, "m/0.tif"), LabelFile(1, "m/1.tif")],
        "nucleoli": [LabelFile(1, "n.tif")],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structure,picture\n", "structure, image, label"),
        ("", "columns none"),
        ("structure,image,label\n", "no labelled slice"),
        ("structure,image,label\nnuclei,c.tif,m.tif\n", r"line 2: no image 'c\.tif'"),
        ("structure,image,label\nnuclei,2,m.tif\n", "no image '2'"),
        ("structure,image,label\nnuclei,-1,m.tif\n", "no image '-1'"),
        ("structure,image,label\nnuclei,a.tif,\n", "line 2: needs"),
        ("structure,image,label\nnuclei,a.tif\n", "line 2: needs"),
        ("structure,image,label\nn,a.tif,m.tif\nn,0,k.tif\n", "line 3: n of image '0' is listed"),
    ],
)
def test_csv_errors(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_pairing(_csv(tmp_path, text), ["a.tif", "b.tif"])


def test_csv_missing(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_pairing(tmp_path / "none.csv", ["a.tif"])
