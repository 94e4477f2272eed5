import unicodedata

import numpy as np
import pytest
import tifffile

from vemseg_jax.data.convert.pairing_csv import LabelFile, read_pairing
from vemseg_jax.data.formats.file_names import find_file, find_path
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.errors import InputError

IMAGES = ["a.tif", "b.tif"]
NFC, NFD = (unicodedata.normalize(form, "Präparat_") for form in ("NFC", "NFD"))
HEAD = "structure,image,label\n"
NUMBERED = [f"slice_{n:04d}.tif" for n in range(1, 25)]


def _csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def _slices(path, images, **options):
    found = read_pairing(path, images, **options)
    return [file.z for files in found.labels.values() for file in files]


def test_by_name_and_by_slice(tmp_path):
    path = _csv(
        tmp_path,
        "\ufeffstructure, image, label\nnuclei,b.tif,m/1.tif\nnuclei,0,m/0.tif\nnucleoli,1,n.tif\n",
    )
    assert read_pairing(path, IMAGES).labels == {
        "nuclei": [LabelFile(0, "m/0.tif"), LabelFile(1, "m/1.tif")],
        "nucleoli": [LabelFile(1, "n.tif")],
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
def test_as_programs_write_it(tmp_path, separator, end, encoding):
    rows = [
        " Structure", "IMAGE ", "label", "note",
        "nuclei", f"{NFC}1.tif", f'"{NFC}m{separator}1.tif"', "sch\u00f6n",
        "nuclei", f'"{NFC}0.tif"', "m/0.tif", "",
        "", "", "", "",
    ]  # fmt: skip
    lines = [separator.join(rows[i : i + 4]) for i in range(0, len(rows), 4)]
    text = end.join([*lines, "", ""])
    data = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = _csv(tmp_path, data + text.encode(encoding))
    assert read_pairing(path, [f"{NFD}{z}.tif" for z in range(3)]).labels == {
        "nuclei": [LabelFile(0, "m/0.tif"), LabelFile(1, f"{NFC}m{separator}1.tif")]
    }


def test_with_the_line_that_tells_excel_the_separator(tmp_path):
    path = _csv(tmp_path, "sep=;\r\nstructure;image;label\r\nnuclei;b.tif;m,1.tif\r\n")
    assert read_pairing(path, IMAGES).labels == {"nuclei": [LabelFile(1, "m,1.tif")]}
    path = _csv(tmp_path, "sep=;\nstructure;image;label\nnuclei;c.tif;m.tif\n")
    with pytest.raises(InputError, match="line 3: no image"):
        read_pairing(path, IMAGES)


def test_images_with_their_folder(tmp_path):
    path = _csv(tmp_path, HEAD + "n,images/b.tif,m.tif\nn,D:\\em\\a.tif,k.tif\n")
    assert _slices(path, IMAGES) == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structure,picture\n", "structure, image, label"),
        ("structure,image,label,image\n", "each once"),
        ("", "columns none"),
        (HEAD, "no labelled slice"),
        (HEAD + "nuclei,c.tif,m.tif\n", r"line 2: no image 'c\.tif'; give a file name such as a"),
        (HEAD + "\nnuclei,c.tif,m.tif\n", "line 3: no image"),
        (HEAD + "nuclei,3,m.tif\n", "line 2 has the number 3, which is no slice"),
        (HEAD + "nuclei,-1,m.tif\n", "no image '-1'"),
        (HEAD + "nuclei,1.0,m.tif\n", "no image '1.0'"),
        (HEAD + "nuclei,a.tif,\n", "line 2: needs"),
        (HEAD + "nuclei,a.tif\n", "line 2: needs"),
        (HEAD + "nuclei,a.tif,m,1.tif\n", "line 2: 4 fields for 3 columns; put names"),
        (HEAD + "n,a.tif,m.tif\nn,0,k.tif\n", "line 3: n of image '0' is listed"),
        (HEAD + "n,a.tif,m.tif\nN,b.tif,k.tif\n", "'n' and 'N' differ in upper and lower case"),
        (b"structure\x00,image,label\n", "save it as CSV UTF-8"),
        (HEAD.encode() + b"n,\x81.tif,m.tif\n", "save it as CSV UTF-8"),
        (HEAD + f"n,{NFC}.tif,m.tif\n", "no image"),
    ],
)
def test_errors(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_pairing(_csv(tmp_path, text), IMAGES)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_pairing(tmp_path / "none.csv", IMAGES)


def _numbers(tmp_path, numbers):
    return _csv(tmp_path, HEAD + "".join(f"nuclei,{n},m{n}.tif\n" for n in numbers))


@pytest.mark.parametrize(
    ("images", "numbers", "slices", "said"),
    [
        (NUMBERED, (1, 24), [0, 23], "are those at the end of image names"),
        (NUMBERED, (0, 4), [0, 4], "count slices from 0"),
        ([f"s{n:03d}.tif" for n in range(24)], (4, 8), [4, 8], "are those at the end"),
        ([f"s{n}.tif" for n in range(100, 124)], (104, 108), [4, 8], "are those at the end"),
        (24, (0, 4), [0, 4], "count slices from 0"),
        (24, (4, 24), [3, 23], "count slices from 1"),
        (["a.tif", "b.tif", "c.tif"], (1, 3), [0, 2], "count slices from 1"),
    ],
)
def test_numbers_without_doubt(tmp_path, images, numbers, slices, said):
    found = read_pairing(_numbers(tmp_path, numbers), images)
    assert [file.z for file in found.labels["nuclei"]] == slices
    assert said in str(found.counted)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (NUMBERED, r"line 2: image 5 may be slice_0005\.tif.*or slice_0006\.tif, slice 5.*"
                   r"--first_slice=0 if it is slice_0006\.tif or --first_slice=1 if"),
        (NUMBERED[2:], r"image 5 may be slice_0005\.tif.*write file names"),
        (24, "line 2 may be slice z=5 or z=4; give --first_slice=0"),
        ([f"s{n}.tif" for n in range(100, 124)], "line 2 may be slice z=5 or z=4"),
    ],
)  # fmt: skip
def test_doubtful_numbers_are_refused(tmp_path, images, message):
    path = _numbers(tmp_path, (5, 9))
    with pytest.raises(InputError, match=message):
        read_pairing(path, images)
    assert _slices(path, images, first_slice=0) == [5, 9]
    assert _slices(path, images, first_slice=1) == [4, 8]


def test_paths_in_other_spellings(tmp_path):
    folder = tmp_path / f"{NFD}x"
    folder.mkdir()
    (folder / f"{NFD}1.tif").touch()
    for name in (f"{NFC}x/{NFC}1.tif", f"{NFC}x\\{NFC}1.tif", f"{NFD}x\\{NFC}1.tif"):
        assert find_file(tmp_path, name, table=tmp_path / "p.csv") == folder / f"{NFD}1.tif"
    assert find_path(tmp_path / f"{NFC}x" / "none" / "b") == folder / "none" / "b"
    (tmp_path / "Mask.tif").touch()
    for name, hint in (
        ("mask.tif", "Mask.tif differs in upper and lower case"),
        ("none.tif", "relative to the CSV"),
        ("C:\\x\\mask.tif", "a path of Windows"),
    ):
        with pytest.raises(InputError, match=hint):
            find_file(tmp_path, name, table=tmp_path / "p.csv")


def test_sources_in_another_spelling(tmp_path):
    folder = tmp_path / f"{NFD}x"
    folder.mkdir()
    tifffile.imwrite(folder / f"{NFD}1.tif", np.zeros((40, 50), np.uint8))
    assert open_source(tmp_path / f"{NFC}x").names == (f"{NFD}1.tif",)
    assert open_source(tmp_path / f"{NFC}x" / f"{NFC}1.tif").shape == (1, 40, 50)
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / f"{NFC}y")


def test_two_files_of_one_look(tmp_path):
    middle = "\u1e69"  # has a third spelling, neither composed nor taken apart
    for spelling in (middle, unicodedata.normalize("NFD", middle)):
        (tmp_path / f"{spelling}.tif").touch()
    assert find_path(tmp_path / f"{middle}.tif").name == f"{middle}.tif"
    with pytest.raises(InputError, match="2 entries of the folder look like this name"):
        find_path(tmp_path / "\u015b\u0323.tif".replace("\u015b", "s\u0307"))
    path = _csv(tmp_path, HEAD + "n,s\u0307\u0323.tif,m.tif\n")
    images = [f"{middle}.tif", unicodedata.normalize("NFD", middle) + ".tif"]
    with pytest.raises(InputError, match="2 images look like"):
        read_pairing(path, images)
