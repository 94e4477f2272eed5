"""PNG slices and labels, and files of formats that are not read."""

import gzip

import numpy as np
import pytest
from PIL import Image

from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.unknown import explain
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)
MASK = (GREY > 150).astype(np.uint8)


def _save(path, image, **options):
    path.parent.mkdir(exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def _paletted(plane):
    image = Image.fromarray(plane, mode=None).convert("L")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    return image


@pytest.mark.parametrize("plane", [GREY, GREY.astype(np.uint16) * 257 + 3], ids=["8", "16"])
def test_grey_images(tmp_path, plane):
    for z in (10, 9):
        _save(tmp_path / "f" / f"s_{z}.png", plane + np.asarray(z, plane.dtype))
    source = open_source(tmp_path / "f")
    assert source.names == ("s_9.png", "s_10.png") and source.dtype == plane.dtype
    for index, z in enumerate((9, 10)):
        np.testing.assert_array_equal(source.read(index), plane + np.asarray(z, plane.dtype))
    single = open_source(tmp_path / "f" / "s_9.png")
    assert single.shape == (1, 40, 48)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(MASK * 255),
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(np.uint16) * 700),
        Image.fromarray(MASK * 255).convert("1"),
        _paletted(MASK),
        Image.fromarray(np.stack([MASK * 255, np.full_like(MASK, 255)], -1), "LA"),
    ],
    ids=["255", "1", "16bit", "1bit", "palette", "alpha"],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_labels_of_every_kind(tmp_path, image):
    for z in range(3):
        _save(tmp_path / "images" / f"s_{z}.png", GREY)
    _save(tmp_path / "nuclei" / "n_1.png", image)
    options = ConvertOptions(
        voxel_size=(50, 10, 10), labels=[("nuclei", tmp_path / "nuclei")], downsample=1
    )
    volume = open_volume(convert(tmp_path / "images", tmp_path / "v.zarr", options))
    assert volume.labelled_slices("nuclei") == (1,)
    plane = volume.label("nuclei", FULL)[1].read().result()
    np.testing.assert_array_equal(plane, MASK)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_two_and_four_bit_keep_their_values(tmp_path, bits):
    plane = GREY % np.uint8(2**bits)
    image = _paletted(plane)
    _save(tmp_path / "p.png", image, bits=bits)
    np.testing.assert_array_equal(open_source(tmp_path / "p.png", label=True).read(0), plane)
    # Pillow writes no grey values of so few bits: the palette of such a file is taken away.
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "g.png").write_bytes(_as_grey(data))
    np.testing.assert_array_equal(open_source(tmp_path / "g.png", label=True).read(0), plane)


def _as_grey(data):
    import struct
    import zlib

    out, position = data[:8], 8
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        position += length + 12
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        if kind != b"PLTE":
            crc = zlib.crc32(kind + body)
            out += struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", crc)
    return out


def test_an_explicit_pairing_of_png_and_tiff(tmp_path):
    import tifffile

    for z in range(2):
        _save(tmp_path / "images" / f"s_{z}.png", GREY)
    _save(tmp_path / "a.png", MASK * 255)
    tifffile.imwrite(tmp_path / "b.tif", MASK * 255)
    (tmp_path / "p.csv").write_text("structure,image,label\nnuclei,0,a.png\nnuclei,1,b.tif\n")
    options = ConvertOptions(voxel_size=(50, 10, 10), labels_csv=tmp_path / "p.csv", downsample=1)
    volume = open_volume(convert(tmp_path / "images", tmp_path / "v.zarr", options))
    assert volume.labelled_slices("nuclei") == (0, 1)


def test_what_cannot_be_meant_is_refused(tmp_path):
    colour = _save(tmp_path / "c.png", np.stack([GREY] * 3, -1))
    for label in (False, True):
        with pytest.raises(InputError, match=r"c\.png: a colour image \(RGB\)"):
            open_source(colour, label=label)
    with pytest.raises(InputError, match=r"p\.png: an image with a palette"):
        open_source(_save(tmp_path / "p.png", _paletted(MASK)))
    with pytest.raises(InputError, match="grey values of 1 bit"):
        open_source(_save(tmp_path / "b.png", Image.fromarray(MASK * 255).convert("1")))
    clear = np.stack([GREY, GREY], -1)
    with pytest.raises(InputError, match="partly transparent"):
        open_source(_save(tmp_path / "t.png", clear)).read(0)


def test_both_kinds_in_a_folder(tmp_path):
    import tifffile

    _save(tmp_path / "f" / "a_1.png", GREY)
    tifffile.imwrite(tmp_path / "f" / "a_2.tif", GREY)
    with pytest.raises(InputError, match=r"1 TIFF files .* and 1 PNG files"):
        open_source(tmp_path / "f")


def test_a_png_cut_short_or_damaged(tmp_path):
    path = _save(tmp_path / "a.png", GREY)
    data = path.read_bytes()
    for place in (10, 40, len(data) // 2, len(data) - 9):
        path.write_bytes(data[:place])
        with pytest.raises(InputError, match="truncated or damaged"):
            open_source(path)
    path.write_bytes(data[:200] + bytes(100) + data[300:])
    with pytest.raises(InputError, match=r"a\.png.*: truncated or damaged"):
        open_source(path).read(0)


def test_a_slice_larger_than_pillow_allows(tmp_path, monkeypatch):
    path = _save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(open_source(path).read(0), GREY)


_HEADS = {
    "a.jpg": (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG image"),
    "a.bmp": (b"BM" + bytes(99), "a BMP image"),
    "a.czi": (b"ZISRAWFILE" + bytes(99), "a Zeiss CZI file"),
    "a.lif": (b"\x70\0\0\0" + bytes(99), "a Leica LIF file"),
    "a.dm4": (b"\0\0\0\4" + bytes(99) + b"x", "a Gatan DM4 file"),
    "a.vsi": (b"II*\0" + bytes(99), "an Olympus VSI file"),
    "a.npy": (b"\x93NUMPY" + bytes(99), "a NumPy array"),
    "a.nii": (bytes(340) + b"\x60\x01\0\0n+1\0", "a NIfTI file"),
    "a.nii.gz": (gzip.compress(b"x" * 400), "a NIfTI file compressed with gzip"),
    "a.nrrd": (b"NRRD0004\n", "an NRRD file"),
    "a.7z": (b"7z\xbc\xaf" + bytes(99), "a 7z archive"),
    "lfs.tif": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "page.tif": (b"<!DOCTYPE html><html>", "is a web page"),
    "zero.tif": (bytes(5000), "5,000 bytes of 0 and nothing else"),
    "jpeg.tif": (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG image"),
    "a.raw": (b"123456789", "raw bytes without a record of their shape"),
    "a.companion.ome": (b"<?xml version='1.0'?><OME/>", "OME-XML without pixels"),
    "a.tif": (b"12345678", "not a TIFF file, though its name says so"),
    "a.png": (b"12345678", "not a PNG file, though its name says so"),
}


@pytest.mark.parametrize("name", _HEADS)
def test_other_formats_are_called_by_their_name(tmp_path, name):
    content, expected = _HEADS[name]
    (tmp_path / name).write_bytes(content)
    assert expected in explain(tmp_path / name)
    with pytest.raises(InputError, match=expected) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value) and "damaged" not in str(caught.value)


def test_a_folder_of_another_format(tmp_path):
    for z in range(3):
        (tmp_path / f"a{z}.jpg").write_bytes(_HEADS["a.jpg"][0])
    with pytest.raises(InputError, match=r"\(3 of its 3 entries end in \.jpg: each is a JPEG"):
        open_source(tmp_path)
