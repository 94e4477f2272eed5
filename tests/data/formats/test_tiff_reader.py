"""Pixels of TIFF files are what a viewer shows."""

import numpy as np
import pytest
import tifffile

from vemseg_jax.data.formats.open import open_source
from vemseg_jax.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)
MASK = GREY > 150


def _write(path, plane, **options):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, plane, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inverted_images_are_read_as_shown(tmp_path, dtype):
    largest = np.iinfo(dtype).max
    plane = (GREY * dtype(largest // 255)).astype(dtype)
    path = _write(tmp_path / "a.tif", largest - plane, photometric="miniswhite")
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0), plane)
    assert "1 of 1 slices store white as 0" in source.notes[0]


def test_a_folder_or_stack_of_both_kinds_is_right_slice_by_slice(tmp_path):
    folder = tmp_path / "f"
    with tifffile.TiffWriter(tmp_path / "s.tif") as tif:
        for z in range(4):
            options = {"photometric": "miniswhite" if z % 2 else "minisblack", "metadata": None}
            plane = 255 - GREY if z % 2 else GREY
            _write(folder / f"{z}.tif", plane, **options)
            tif.write(plane, **options)
    for source in (open_source(folder), open_source(tmp_path / "s.tif")):
        for z in range(4):
            np.testing.assert_array_equal(source.read(z), GREY)
        assert "2 of 4 slices store white as 0" in source.notes[0]


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "packbits"}])
def test_the_structure_of_a_label_is_what_is_shown_white(tmp_path, options):
    stored = {"bit": ~MASK, "byte": np.where(MASK, 0, 255).astype(np.uint8)}
    for name, plane in stored.items():
        if name == "bit" and options.get("compression") == "packbits":
            continue
        path = _write(tmp_path / f"{name}.tif", plane, photometric="miniswhite", **options)
        source = open_source(path, label=True)
        np.testing.assert_array_equal(source.read(0) > 0, MASK)
        assert "what is shown white is the structure" in source.notes[0]


def test_inverted_labels_with_other_values_mean_nothing(tmp_path):
    path = _write(tmp_path / "a.tif", (GREY % 4).astype(np.uint8), photometric="miniswhite")
    with pytest.raises(InputError, match=r"a\.tif: an inverted label .* save it with black as 0"):
        open_source(path, label=True).read(0)


def test_masks_of_imagej_keep_their_values(tmp_path):
    plane = np.where(MASK, 255, 0).astype(np.uint8)
    path = _write(tmp_path / "a.tif", plane, imagej=True, photometric="miniswhite")
    source = open_source(path, label=True)
    np.testing.assert_array_equal(source.read(0), plane)
    assert "inverting lookup table" in source.notes[0]


def test_an_opaque_alpha_channel_is_left_out(tmp_path):
    opaque = np.stack([GREY, np.full_like(GREY, 255)])
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "metadata": None}
    _write(tmp_path / "p.tif", opaque, planarconfig="separate", **options)
    _write(tmp_path / "c.tif", opaque.transpose(1, 2, 0), planarconfig="contig", **options)
    for name in ("p.tif", "c.tif"):
        for label in (False, True):
            plane = open_source(tmp_path / name, label=label).read(0)
            np.testing.assert_array_equal(plane, GREY)
    opaque[1, 3, 4] = 0
    _write(tmp_path / "t.tif", opaque, planarconfig="separate", **options)
    with pytest.raises(InputError, match=r"t\.tif: partly transparent"):
        open_source(tmp_path / "t.tif").read(0)


def test_values_of_twelve_bit_are_unpacked(tmp_path):
    stack = (np.stack([GREY, GREY[::-1]]).astype(np.uint16) << 4) + 5
    tifffile.imwrite(tmp_path / "a.tif", stack, bitspersample=12, metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert source.dtype == np.uint16
    np.testing.assert_array_equal([source.read(0), source.read(1)], stack)


def test_colour_labels_are_refused_in_words(tmp_path):
    path = _write(tmp_path / "a.tif", np.stack([GREY] * 3, -1), photometric="rgb")
    with pytest.raises(InputError, match=r"a colour image .* labels of one value per pixel"):
        open_source(path, label=True)
