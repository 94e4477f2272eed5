"""MRC files as programs write them, which is not always as the standard has it."""

import bz2
import gzip
import json
import struct

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE
from scipy import ndimage

from tests.data import volumes
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

SHAPE = (5, 40, 48)
NOISE = np.random.default_rng(0).normal(size=SHAPE)
SMOOTH = ndimage.gaussian_filter(NOISE, (0, 3, 3))
# Grey values as of tissue: neighbours are alike, and most lie around 128.
TISSUE = np.clip(128 + 60 * SMOOTH / SMOOTH.std(), 1, 254).astype(np.uint8)
MASK = (TISSUE > 140).astype(np.uint8)
VOXEL_SIZE = (50.0, 8.0, 10.0)
RECORDED_AS_NONE = {"dmin": 0, "dmax": -1, "dmean": -2}
STAMP = 212


def _write(path, data, *, imod=None, **header):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        if data.ndim == 3:
            file.set_volume()
        file.voxel_size = tuple(10 * size for size in VOXEL_SIZE[::-1])
        for name, value in header.items():
            setattr(file.header, name, value)
    if imod is not None:
        _patch(path, 152, struct.pack("<ii", 1146047817, imod))
    return path


def _patch(path, offset, new):
    data = bytearray(path.read_bytes())
    data[offset : offset + len(new)] = new
    path.write_bytes(data)
    return path


def _read(source):
    return np.stack([source.read(z) for z in range(source.shape[0])])


def _statistics(values):
    return {"dmin": values.min(), "dmax": values.max(), "dmean": values.mean()}


def _signed(values):
    """As IMOD stores them."""
    return (values.astype(int) - 128).astype(np.int8)


@pytest.mark.parametrize(
    ("data", "options", "note"),
    [
        (TISSUE.view(np.int8), _statistics(TISSUE), "its header has values"),
        (TISSUE.view(np.int8), RECORDED_AS_NONE, "by the look of them"),
        (TISSUE.view(np.int8), {"dmin": 0, "dmax": 0, "dmean": 0}, "by the look of them"),
        (TISSUE.view(np.int8), {"imod": 0}, None),
        (_signed(TISSUE), {"imod": 1}, "128 is added, as IMOD shows them"),
    ],
)
def test_bytes_from_0_to_255(tmp_path, data, options, note):
    source = open_source(_write(tmp_path / "a.mrc", data, **options))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert (note is None and not source.notes) or note in " ".join(source.notes)


def test_bytes_below_128_are_the_same_either_way(tmp_path):
    source = open_source(_write(tmp_path / "a.mrc", (TISSUE // 2).astype(np.int8)))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(_read(source), TISSUE // 2)


@pytest.mark.parametrize("options", [{}, RECORDED_AS_NONE])
def test_bytes_that_are_signed(tmp_path, options):
    path = _write(tmp_path / "a.mrc", _signed(TISSUE), **options)
    with pytest.raises(InputError, match=r"int8.*--value_range"):
        open_source(path)
    source = open_source(path, value_range=(-128, 127))
    np.testing.assert_array_equal(_read(source), TISSUE)


def test_bytes_in_doubt_are_refused_and_the_flag_counts(tmp_path):
    # As set_data() of unsigned bytes viewed as signed ones leaves the header.
    path = _write(tmp_path / "a.mrc", TISSUE.view(np.int8))
    with pytest.raises(InputError, match=r"but they look unsigned; .*--mrc_bytes=signed"):
        open_source(path)
    np.testing.assert_array_equal(_read(open_source(path, mrc_bytes="unsigned")), TISSUE)
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    path = _write(tmp_path / "b.mrc", noise.view(np.int8), **RECORDED_AS_NONE)
    with pytest.raises(InputError, match=r"may be signed or unsigned.*--mrc_bytes=signed"):
        open_source(path)
    path = _write(tmp_path / "c.mrc", _signed(TISSUE), imod=0)
    source = open_source(path, mrc_bytes="imod")
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert "read as imod (--mrc_bytes), but IMOD recorded unsigned" in source.notes[0]


@pytest.mark.parametrize(
    ("data", "imod", "expected"),
    [
        (_signed(MASK), 1, MASK),
        (MASK.view(np.int8), None, MASK),
        (MASK.view(np.int8), 0, MASK),
        (_signed(255 * MASK), 1, 255 * MASK),
    ],
)
def test_labels_of_bytes(tmp_path, data, imod, expected):
    source = open_source(_write(tmp_path / "a.mrc", data, imod=imod), label=True)
    np.testing.assert_array_equal(_read(source), expected)


def test_labels_of_bytes_in_doubt(tmp_path):
    path = _write(tmp_path / "a.mrc", _signed(MASK))
    with pytest.raises(
        InputError, match=r"-128, -127 as signed bytes, as IMOD stores.*--mrc_bytes"
    ):
        open_source(path, label=True)
    source = open_source(path, label=True, mrc_bytes="imod")
    np.testing.assert_array_equal(_read(source), MASK)
    path = _write(tmp_path / "b.mrc", (255 * MASK).view(np.int8))
    with pytest.raises(InputError, match=r"label values -1, 0 as signed bytes; .*--mrc_bytes"):
        open_source(path, label=True)
    source = open_source(path, label=True, mrc_bytes="unsigned")
    np.testing.assert_array_equal(_read(source), 255 * MASK)


def _big_endian(path):
    data = path.read_bytes()
    header = np.frombuffer(data, HEADER_DTYPE, 1)
    values = np.frombuffer(data, "<u2", offset=1024)
    path.write_bytes(
        header.astype(HEADER_DTYPE.newbyteorder(">")).tobytes() + values.astype(">u2").tobytes()
    )
    return path


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    "stamp", [b"DD\0\0", b"DA\0\0", b"\x11\x11\0\0", b"D   ", b"\0\0\0\0", b"xxxx"]
)
def test_machine_stamps(tmp_path, order, stamp):
    path = _write(tmp_path / "a.mrc", TISSUE.astype(np.uint16))
    if order == "big":
        _big_endian(path)
    source = open_source(_patch(path, STAMP, stamp))
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert source.voxel_size == VOXEL_SIZE
    known = {b"DD": "little", b"DA": "little", b"\x11\x11": "big"}.get(stamp[:2])
    assert bool(source.notes) == (known != order)
    if source.notes:
        assert f"machine stamp is {stamp.hex(' ')}" in source.notes[0]
        assert f"read as {order}-endian" in source.notes[0]


def test_files_without_the_mark(tmp_path):
    path = _patch(_write(tmp_path / "a.mrc", TISSUE.astype(np.uint16)), 208, bytes(4))
    source = open_source(path)
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert "without the mark MAP" in source.notes[0]


def test_length(tmp_path):
    path = _write(tmp_path / "a.mrc", TISSUE.astype(np.uint16))
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 77)
    source = open_source(path)
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert source.notes == ("77 bytes behind the 5 sections are not read",)
    path.write_bytes(whole + bytes(3 * 40 * 48 * 2))
    assert "as much as 3 more sections: see whether nz is right" in open_source(path).notes[0]
    path.write_bytes(whole[:-5000])
    with pytest.raises(InputError, match=r"truncated: 3 of 5 sections are there \(15224 of 20224"):
        open_source(path)
    path.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"100 bytes; the header .* alone has 1024"):
        open_source(path)


def test_extended_headers_and_image_stacks(tmp_path):
    for name, kind in (("a.mrc", b"SERI"), ("b.mrc", b"FEI1")):
        path = _write(tmp_path / name, TISSUE.astype(np.uint16))
        with mrcfile.open(path, "r+") as file:
            file.set_extended_header(np.full(2048, 7, np.uint8))
            file.header.exttyp = kind
            file.set_image_stack()
        source = open_source(path)
        np.testing.assert_array_equal(_read(source), TISSUE)
        assert source.notes == ()


def test_voxel_sizes_that_are_none(tmp_path):
    data = TISSUE.astype(np.uint16)
    assert open_source(_write(tmp_path / "a.mrc", data)).voxel_size == VOXEL_SIZE
    assert open_source(_write(tmp_path / "b.mrc", data, mz=0)).voxel_size == (None, 8, 10)
    with mrcfile.open(tmp_path / "a.mrc", "r+") as file:
        file.voxel_size = 0
    assert open_source(tmp_path / "a.mrc").voxel_size == (None, None, None)
    # What programs write that were told none.
    with mrcfile.open(tmp_path / "a.mrc", "r+") as file:
        file.voxel_size = 1
    assert open_source(tmp_path / "a.mrc").voxel_size == (None, None, None)


@pytest.mark.parametrize("dtype", ["i2", "f2", "f4"])
def test_modes_that_need_a_range(tmp_path, dtype):
    source = open_source(_write(tmp_path / "a.mrc", TISSUE.astype(dtype)), value_range=(0, 255))
    np.testing.assert_array_equal(_read(source), 257 * TISSUE.astype(int))


def test_four_bits(tmp_path):
    nibbles = TISSUE[:, :, :47] >> 4
    path = _write(tmp_path / "a.mrc", nibbles.astype(np.int8))
    padded = np.pad(nibbles, ((0, 0), (0, 0), (0, 1)))
    packed = padded[..., ::2] | padded[..., 1::2] << 4
    header = _patch(path, 12, struct.pack("<i", 101)).read_bytes()[:1024]
    path.write_bytes(header + packed.tobytes())
    np.testing.assert_array_equal(_read(open_source(path)), nibbles)


@pytest.mark.parametrize(
    ("mode", "named"),
    [(3, "complex numbers"), (4, "a Fourier transform"), (16, "colours"), (7, "not known")],
)
def test_modes_that_are_refused_by_name(tmp_path, mode, named):
    path = _patch(_write(tmp_path / "a.mrc", TISSUE.view(np.int8)), 12, struct.pack("<i", mode))
    with pytest.raises(InputError, match=rf"MRC mode {mode}, .*{named}"):
        open_source(path)


def test_headers_that_are_refused(tmp_path):
    data = TISSUE.astype(np.uint16)
    with pytest.raises(InputError, match=r"0 sections \(nz\)"):
        open_source(_write(tmp_path / "a.mrc", data, nz=0))
    with pytest.raises(InputError, match="its header makes no sense"):
        open_source(_patch(tmp_path / "a.mrc", 0, struct.pack("<i", -5)))
    with mrcfile.new(tmp_path / "b.mrc") as file:
        file.set_data(np.zeros((3, 4, 40, 48), np.uint16))
    with pytest.raises(InputError, match="3 volumes of 4 sections each"):
        open_source(tmp_path / "b.mrc")
    path = _write(tmp_path / "c.mrc", TISSUE.view(np.int8), imod=16)
    with pytest.raises(InputError, match="two values of 4 bit each"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.mrc.gz", "a.rec.bz2", "plain.gz"])
def test_packed_files(tmp_path, name):
    plain = _write(tmp_path / "in.mrc", TISSUE.astype(np.uint16)).read_bytes()
    pack = bz2.compress if name.endswith("bz2") else gzip.compress
    (tmp_path / name).write_bytes(pack(plain))
    source = open_source(tmp_path / name)
    np.testing.assert_array_equal(_read(source), TISSUE)
    assert source.voxel_size == VOXEL_SIZE
    (tmp_path / name).write_bytes(pack(plain[:-5000]))
    with pytest.raises(InputError, match="truncated: 3 of 5 sections"):
        open_source(tmp_path / name)
    (tmp_path / name).write_bytes(pack(plain)[:-2000])
    with pytest.raises(InputError, match="truncated or damaged"):
        open_source(tmp_path / name)


def _convert(images, labels, output, **options):
    given = ConvertOptions(
        downsample=1, overwrite=True, voxel_size=VOXEL_SIZE, labels=[("nuclei", labels)], **options
    )
    volume = open_volume(convert(images, output, given))
    drawn = [volume.label("nuclei", FULL)[z].read().result() for z in range(SHAPE[0])]
    return volume.image(FULL).read().result(), np.stack(drawn)


def test_rows_of_mrc_images_and_other_labels(tmp_path, capsys):
    upside_down = _write(tmp_path / "in.mrc", np.ascontiguousarray(TISSUE[:, ::-1], np.uint16))
    labels = volumes.tiff_folder(tmp_path / "labels", MASK)
    output = tmp_path / "v.zarr"
    with pytest.raises(InputError, match=r"nuclei fits .* better when its rows are.*--flip_y=labe"):
        _convert(upside_down, labels, output)
    image, mask = _convert(upside_down, labels, output, flip_y=["images"])
    np.testing.assert_array_equal(image, TISSUE)
    np.testing.assert_array_equal(mask, MASK)
    image, mask = _convert(upside_down, labels, output, flip_y=["labels"])
    np.testing.assert_array_equal(image, TISSUE[:, ::-1])
    np.testing.assert_array_equal(mask, MASK[:, ::-1])
    assert '"flip_y": ["labels"]' in json.dumps(json.loads((output / "zarr.json").read_text()))
    _, mask = _convert(upside_down, labels, output, flip_y=["none"])
    np.testing.assert_array_equal(mask, MASK)
    capsys.readouterr()
    alike = _write(tmp_path / "alike.mrc", TISSUE.astype(np.uint16))
    _, mask = _convert(alike, labels, output)
    np.testing.assert_array_equal(mask, MASK)
    out = capsys.readouterr().out
    assert "first row of the MRC file becomes the top one" in out
    assert "of nuclei are right as stored" in out and "warning" not in out


def test_rows_that_leave_doubt_are_warned_of(tmp_path, capsys):
    noise = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
    images = volumes.tiff_folder(tmp_path / "in", noise)
    labels = _write(tmp_path / "labels.mrc", MASK.view(np.int8))
    _convert(images, labels, tmp_path / "v.zarr")
    out = capsys.readouterr().out
    assert "warning: nuclei is MRC" in out and "--flip_y=labels" in out
    _convert(labels, labels, tmp_path / "w.zarr")
    assert "warning" not in capsys.readouterr().out


def test_flip_y_names_sources(tmp_path):
    labels = volumes.tiff_folder(tmp_path / "labels", MASK)
    images = volumes.tiff_folder(tmp_path / "in", TISSUE)
    with pytest.raises(InputError, match=r"--flip_y=x: 'x' is none of images, labels, nuclei;"):
        _convert(images, labels, tmp_path / "v.zarr", flip_y=["x"])
    image, mask = _convert(images, labels, tmp_path / "v.zarr", flip_y=["images", "nuclei"])
    np.testing.assert_array_equal(image, TISSUE[:, ::-1])
    np.testing.assert_array_equal(mask, MASK[:, ::-1])
