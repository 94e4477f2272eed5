import json
import struct

import numpy as np
import pytest
import tensorstore as ts
import tifffile

from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.physical_size import nanometres
from vemseg_jax.errors import InputError

STACK = np.random.default_rng(0).integers(0, 256, (5, 40, 48), np.uint8)


def _folder(path, planes=STACK, *, suffix=".tif", **options):
    path.mkdir(exist_ok=True)
    for z, plane in enumerate(planes):
        tifffile.imwrite(path / f"s_{z}{suffix}", plane, **options)
    return path


def _read(source):
    return np.stack([source.read(z) for z in range(source.shape[0])])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"bigtiff": True},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"compression": "packbits", "rowsperstrip": 7},
        {"imagej": True},
        {"ome": True},
        {"ome": True, "bigtiff": True, "compression": "zstd"},
        {"metadata": {"axes": "ZYX"}},
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_stacks(tmp_path, dtype, options):
    stack = (STACK.astype(dtype) * (1 if dtype == "u1" else 257)).astype(dtype)
    path = tmp_path / "s.tif"
    byteorder = ">" if dtype == ">u2" else "<"
    if options.get("compression") == "packbits" and dtype != "u1":
        options = {"compression": "zlib", "rowsperstrip": 7}
    if options.get("imagej"):
        byteorder = ">"
    tifffile.imwrite(path, stack, byteorder=byteorder, **options)
    source = open_source(path)
    assert source.shape == STACK.shape
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    assert source.names == ("0", "1", "2", "3", "4")
    result = _read(source)
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, stack)


def test_contiguous_imagej_stack_with_one_directory(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, STACK, imagej=True, truncate=True)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    np.testing.assert_array_equal(_read(open_source(path)), STACK)


def test_single_page_is_one_slice(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", STACK[0])
    source = open_source(tmp_path / "s.tif")
    assert source.shape == (1, 40, 48)
    np.testing.assert_array_equal(source.read(0), STACK[0])


def test_folder_in_natural_order(tmp_path):
    planes = np.arange(12, dtype=np.uint8)[:, None, None] + np.zeros((12, 20, 20), np.uint8)
    _folder(tmp_path / "f", planes)
    (tmp_path / "f" / "s_3.tif").rename(tmp_path / "f" / "s_3.TIFF")
    (tmp_path / "f" / "notes.txt").write_text("x")
    (tmp_path / "f" / "more").mkdir()
    (tmp_path / "f" / "._s_0.tif").write_text("left by a mac")
    source = open_source(tmp_path / "f")
    assert source.names[2:4] == ("s_2.tif", "s_3.TIFF")
    assert source.names[-1] == "s_11.tif"
    assert source.ignored == 2
    np.testing.assert_array_equal(_read(source), planes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "metadata": {"spacing": 50.0, "unit": "nm"}}, (50, 8, 10)),
        ({"imagej": True, "metadata": {"spacing": 0.05, "unit": "um"}}, (50, 8e3, 1e4)),
        ({"imagej": True, "metadata": {"spacing": 0.05, "unit": "\\u00B5m"}}, (50, 8e3, 1e4)),
        ({"imagej": True, "metadata": {"unit": "nm"}}, (None, 8, 10)),
        ({"imagej": True, "metadata": {"spacing": 50.0, "unit": "pixel"}}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_imagej_voxel_size(tmp_path, options, expected):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, STACK, resolution=(1 / 10, 1 / 8), **options)
    sizes = open_source(path).voxel_size
    for found, wanted in zip(sizes, expected, strict=True):
        assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-6))


def test_ome_voxel_size(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.01, "PhysicalSizeY": 8.0, "PhysicalSizeZ": 50.0}
    metadata |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "nm"}
    tifffile.imwrite(tmp_path / "s.ome.tif", STACK, metadata=metadata)
    source = open_source(tmp_path / "s.ome.tif")
    assert source.voxel_size == pytest.approx((50, 8, 10))
    assert source.axes == "zyx"


def test_axes_are_recorded_or_not(tmp_path):
    tifffile.imwrite(tmp_path / "t.tif", STACK, metadata={"axes": "TYX"}, imagej=True)
    assert open_source(tmp_path / "t.tif").axes == "tyx"
    tifffile.imwrite(tmp_path / "n.tif", STACK, metadata=None)
    assert open_source(tmp_path / "n.tif").axes is None


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (5, "nm", 5.0),
        ("2", "micrometer", 2000.0),
        (3, "µm", 3000.0),
        (3, "furlong", None),
        (3, None, None),
        (-1, "nm", None),
        ("x", "nm", None),
        (None, "nm", None),
        ("inf", "nm", None),
    ],
)
def test_nanometres(value, unit, expected):
    assert nanometres(value, unit) == expected


def _zarr(path, data, *, axes, version, scale, unit="nanometer", extra=None):
    """An OME-Zarr image written with tensorstore."""
    metadata = {"shape": data.shape, "chunks" if version == "0.4" else "chunk_grid": None}
    if version == "0.4":
        metadata |= {"chunks": [1] * (data.ndim - 2) + [16, 16], "dtype": data.dtype.str}
        metadata["compressor"] = {"id": "blosc"}
    else:
        metadata["chunk_grid"] = {
            "name": "regular",
            "configuration": {"chunk_shape": [1] * (data.ndim - 3) + [3, 16, 16]},
        }
        metadata |= {"data_type": data.dtype.name, "dimension_names": list(axes)}
    spec = {
        "driver": "zarr" if version == "0.4" else "zarr3",
        "kvstore": {"driver": "file", "path": str(path / "s0")},
        "metadata": metadata,
    }
    ts.open(spec, create=True).result().write(data).result()
    kinds = {"t": "time", "c": "channel"}
    entries = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "zyx" and unit else {})
        for a in axes
    ]
    multiscale = {
        "axes": entries,
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ],
    } | (extra or {})
    if version == "0.4":
        multiscale["version"] = "0.4"
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscale]}))
    else:
        group = {"zarr_format": 3, "node_type": "group"}
        group["attributes"] = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
        (path / "zarr.json").write_text(json.dumps(group))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ome_zarr(tmp_path, version, dtype):
    data = STACK.astype(dtype)
    path = _zarr(
        tmp_path / "z.zarr",
        data,
        axes="zyx",
        version=version,
        scale=[0.05, 0.004, 0.005],
        unit="micrometer",
        extra={"coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]},
    )
    source = open_source(path)
    assert source.voxel_size == pytest.approx((50, 8, 10))
    assert (source.axes, source.dtype, source.shape) == ("zyx", np.dtype(dtype), STACK.shape)
    np.testing.assert_array_equal(_read(source), data)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_with_one_time_and_channel(tmp_path, version):
    scale = [1.0, 1.0, 50.0, 8.0, 10.0]
    path = _zarr(tmp_path / "z", STACK[None, None], axes="tczyx", version=version, scale=scale)
    source = open_source(path)
    assert source.voxel_size == (50, 8, 10)
    np.testing.assert_array_equal(_read(source), STACK)


def test_ome_zarr_refusals(tmp_path):
    two = np.stack([STACK, STACK])[None]
    scale = [1.0] * 5
    path = _zarr(tmp_path / "c", two, axes="tczyx", version="0.5", scale=scale)
    with pytest.raises(InputError, match=r"axes tczyx of shape \(1, 2, 5, 40, 48\)"):
        open_source(path)
    path = _zarr(
        tmp_path / "f", STACK.astype(np.float32), axes="zyx", version="0.5", scale=scale[:3]
    )
    with pytest.raises(InputError, match="float32"):
        open_source(path)
    path = _zarr(tmp_path / "u", STACK, axes="zyx", version="0.5", scale=scale[:3], unit=None)
    assert open_source(path).voxel_size == (None, None, None)
    # One of its arrays by itself has axes, but no voxel size.
    assert open_source(path / "s0").voxel_size == (None, None, None)
    (path / "s0" / "zarr.json").unlink()
    with pytest.raises(InputError, match="array cannot be opened"):
        open_source(path)


def test_damaged_zarr_chunk_is_an_input_error(tmp_path):
    path = _zarr(tmp_path / "z", STACK, axes="zyx", version="0.4", scale=[1.0] * 3)
    chunk = path / "s0" / "2.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    source = open_source(path)
    source.read(0)
    with pytest.raises(InputError, match=r"z, slice 2: truncated or damaged"):
        source.read(2)


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no TIFF files .it is empty"):
        open_source(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no TIFF files .1 other files"):
        open_source(tmp_path)
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tif: the file is empty"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="of no format that is known here"):
        open_source(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("plane", "options", "message"),
    [
        (np.zeros((40, 48, 3), np.uint8), {"photometric": "rgb"}, "colour image"),
        (np.zeros((40, 41), np.uint8), {}, r"s_1\.tif: uint8 \(40, 41\), but s_0\.tif is"),
        (np.zeros((40, 48), np.uint16), {}, r"s_1\.tif: uint16"),
        (np.zeros((40, 48), np.int16), {}, "int16, 16 bit; 8 or 16 bit unsigned"),
        (np.zeros((40, 48), np.float32), {}, "float32"),
        (np.zeros((40, 48), np.uint32), {}, "uint32"),
        (np.zeros((40, 48), np.bool_), {"photometric": "minisblack"}, "1 bit"),
        (np.zeros((2, 40, 48), np.uint8), {"photometric": "minisblack"}, "2 pages"),
        (np.zeros((40, 48), np.float32), {"photometric": "miniswhite"}, "MinIsWhite"),
        (
            np.zeros((40, 48), np.uint8),
            {"extratags": [("Orientation", "H", 1, 3, True)]},
            "orientation tag 3",
        ),
        (
            np.zeros((40, 48), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "PALETTE",
        ),
    ],
)
def test_odd_slice_in_a_folder_is_refused(tmp_path, plane, options, message):
    folder = _folder(tmp_path / "f")
    tifffile.imwrite(folder / "s_1.tif", plane, **options)
    with pytest.raises(InputError, match=message):
        open_source(folder)


def test_labels_may_be_wider_or_in_a_palette(tmp_path):
    ramp = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", STACK[0], photometric="palette", colormap=ramp)
    np.testing.assert_array_equal(open_source(tmp_path / "p.tif", label=True).read(0), STACK[0])
    for dtype in (np.int32, np.uint32, np.bool_):
        plane = (STACK[0] > 99).astype(dtype)
        tifffile.imwrite(tmp_path / "w.tif", plane, photometric="minisblack")
        np.testing.assert_array_equal(open_source(tmp_path / "w.tif", label=True).read(0), plane)
    tifffile.imwrite(tmp_path / "f.tif", STACK[0].astype(np.float32))
    with pytest.raises(InputError, match=r"f\.tif: label of type float32"):
        open_source(tmp_path / "f.tif", label=True)


def test_grey_palette_is_grey(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "p.tif", STACK[0], photometric="palette", colormap=ramp)
    np.testing.assert_array_equal(open_source(tmp_path / "p.tif").read(0), STACK[0])


def test_mixed_pages_of_a_stack_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as tif:
        tif.write(STACK[0], metadata=None)
        tif.write(STACK[0, :20], metadata=None)
    with pytest.raises(InputError, match=r"m\.tif: holds 2 images"):
        open_source(tmp_path / "m.tif")
    tifffile.imwrite(
        tmp_path / "c.tif",
        np.zeros((3, 2, 40, 48), np.uint8),
        imagej=True,
        metadata={"axes": "ZCYX"},
    )
    with pytest.raises(InputError, match="axes ZCYX"):
        open_source(tmp_path / "c.tif")


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {},
        {"imagej": True},
        {"ome": True},
        {"compression": "zlib"},
        {"compression": "lzw", "metadata": None, "rowsperstrip": 9},
        {"bigtiff": True, "metadata": None},
        {"imagej": True, "truncate": True},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_a_stack_cut_short_anywhere_is_an_input_error(tmp_path, options):
    whole, path = tmp_path / "whole.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, STACK, **options)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    places = {0, 1, 7, 8, 15, 16, len(data) - 1, *rng.integers(0, len(data), 25).tolist()}
    for place in sorted(places):
        path.write_bytes(data[:place])
        try:
            planes = _read(open_source(path))
        except InputError as error:
            assert "cut.tif" in str(error)
            assert "\n" not in str(error)
        else:
            # Bytes after the last slice and its directory hold nothing that is needed.
            np.testing.assert_array_equal(planes, STACK)


def test_damaged_bytes_never_give_another_exception(tmp_path):
    whole, path = tmp_path / "whole.tif", tmp_path / "bad.tif"
    tifffile.imwrite(whole, STACK, compression="zlib", metadata=None)
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            _read(open_source(path))
        except InputError as error:
            assert "bad.tif" in str(error)


def test_directory_that_points_at_itself(tmp_path):
    path = tmp_path / "loop.tif"
    tifffile.imwrite(path, STACK[0], metadata=None)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack("<I", data[4:8])
    (entries,) = struct.unpack("<H", data[start : start + 2])
    data[start + 2 + 12 * entries :][:4] = b""
    end = start + 2 + 12 * entries
    data[end : end + 4] = struct.pack("<I", start)
    path.write_bytes(data)
    with pytest.raises(InputError, match="truncated or damaged"):
        open_source(path)
