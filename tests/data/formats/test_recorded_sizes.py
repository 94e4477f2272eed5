"""What files of every format record of voxel size and position, and what is asked for."""

import json

import h5py
import mrcfile
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr

from tests.data import volumes
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.convert.voxel_size import resolve_voxel_size
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.physical_size import nanometres, nm_per_unit
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError

STACK = np.random.default_rng(0).integers(1, 256, (3, 8, 12), np.uint8)
SIZE = (200.0, 40.0, 40.0)
UM = ["um", "um ", "µm", "μm", "\\u00B5m", "Âµm", "UM", "micron", "microns", "Micrometers"]


@pytest.mark.parametrize(
    ("unit", "nm"),
    [(unit, 1e3) for unit in [*UM, "micrometre", "micrometres", "[um]", "um\0"]]
    + [(unit, 1.0) for unit in ("nm", "NM", "nanometer", "nanometers", "Nanometre", " nm.")]
    + [(unit, 0.1) for unit in ("Å", "\N{ANGSTROM SIGN}", "A", "angstrom", "Angstroms")]
    + [("inch", 2.54e7), ("in", 2.54e7), ("inches", 2.54e7), ("cm", 1e7), ("mm", 1e6)]
    + [("pm", 1e-3), ("meter", 1e9), ("m", 1e9), ("km", 1e12), ("decimetre", 1e8)]
    + [(unit, None) for unit in ("Mm", "Pm", "pixel", "pixels", "reference frame", "pt", "thou")]
    + [(unit, None) for unit in ("", " ", "s", "sec", "voxel", "None", "?m", None, 5)],
)
def test_units(unit, nm):
    assert nm_per_unit(unit) == nm


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (25400 / 72 / 25400, "inch", None),  # 72 dpi
        (1 / 1200, "inch", None),
        (1 / 28.35, "cm", None),
        (4e-6, "cm", 40.0),
        (0.04 / 25400, "inch", 40.0),
        (0, "nm", None),
        (-2, "nm", None),
        ("nan", "nm", None),
    ],
)
def test_lengths(value, unit, expected):
    found = nanometres(value, unit)
    assert found == (None if expected is None else pytest.approx(expected))


def _imagej(path, *, pixel, resolutionunit=None, **metadata):
    options = {} if resolutionunit is None else {"resolutionunit": resolutionunit}
    metadata = {"axes": "ZYX", **metadata}
    resolution = (1 / pixel, 1 / pixel)
    tifffile.imwrite(path, STACK, imagej=True, resolution=resolution, metadata=metadata, **options)
    return open_source(path)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"pixel": 40, "spacing": 0.2, "unit": "nm", "zunit": "um"}, SIZE),
        ({"pixel": 0.04, "spacing": 200, "unit": "um", "zunit": "nm"}, SIZE),
        ({"pixel": 0.04, "spacing": 200, "unit": "um", "yunit": "um", "zunit": "nm"}, SIZE),
        ({"pixel": 40, "spacing": 200, "unit": "um", "xunit": "nm", "yunit": "nm"}, (2e5, 40, 40)),
        ({"pixel": 40, "spacing": 200, "unit": "nm", "zunit": "pixel"}, (None, 40, 40)),
        ({"pixel": 40, "spacing": 200, "unit": "nanometers"}, SIZE),
        ({"pixel": 0.04, "spacing": 0.2, "unit": "um "}, SIZE),
        ({"pixel": 0.04 / 25400, "spacing": 0.2 / 25400, "unit": "inch"}, SIZE),
        ({"pixel": 1 / 72, "spacing": 1 / 72, "unit": "inch"}, (None, None, None)),
        ({"pixel": 4e-6, "spacing": 2e-5, "unit": "cm"}, SIZE),
        ({"pixel": 40, "finterval": 200, "unit": "nm"}, (None, 40, 40)),
        ({"pixel": 0.04, "spacing": -0.2, "unit": "um"}, (None, 40, 40)),
        ({"pixel": 0.04, "spacing": 0, "unit": "um"}, (None, 40, 40)),
        ({"pixel": 0.04, "spacing": "inf", "unit": "um"}, (None, 40, 40)),
        ({"pixel": 1, "spacing": 5}, (None, None, None)),
        # ImageJ itself reads resolutions per cm beside um so; per inch it ignores the tag's unit.
        ({"pixel": 4e-6, "spacing": 0.2, "unit": "um", "resolutionunit": 3}, SIZE),
        ({"pixel": 0.04, "spacing": 0.2, "unit": "um", "resolutionunit": 2}, SIZE),
        # Either may be meant.
        ({"pixel": 1e-4, "spacing": 0.2, "unit": "mm", "resolutionunit": 2}, (2e5, None, None)),
    ],
)
def test_imagej(tmp_path, metadata, expected):
    size = _imagej(tmp_path / "s.tif", **metadata).voxel_size
    for found, wanted in zip(size, expected, strict=True):
        assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-5))


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"pixel": 1, "spacing": 5, "unit": "pixel"}, "size: its unit 'pixel' is no known length"),
        ({"pixel": 1, "spacing": 5}, "size: it records no unit of length"),
        ({"pixel": 40, "spacing": -2, "unit": "nm"}, r"= \?,40,40 nm\): its spacing is -2 nm"),
        ({"pixel": 1 / 72, "spacing": 1, "unit": "inch"}, "size: its spacing is 1 inch"),
    ],
)
def test_what_is_missing_is_asked_for_with_the_reason(tmp_path, metadata, reason):
    with pytest.raises(InputError, match=rf"{reason}; give it in nm as z,y,x"):
        resolve_voxel_size(_imagej(tmp_path / "s.tif", **metadata), None)


def test_frames_confirmed_as_slices_have_no_depth_of_time(tmp_path):
    metadata = {"axes": "TYX", "unit": "nm", "finterval": 0.5}
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(1 / 40, 1 / 40), metadata=metadata)
    source = open_source(path, axes="zyx")
    assert source.voxel_size == (None, pytest.approx(40), pytest.approx(40))
    two = np.stack([STACK, STACK])
    tifffile.imwrite(path, two, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match=r"axes TZYX with shape \(2, 3, 8, 12\)"):
        open_source(path, axes="zyx")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        (250000, "CENTIMETER", 40),
        (635000, "INCH", 40),
        (72, "INCH", None),
        (300, "INCH", None),
        (28.35, "CENTIMETER", None),
        (25, "NONE", None),
    ],
)
def test_resolution_tags_too_fine_for_a_printer_are_read(tmp_path, resolution, unit, expected):
    path = tmp_path / "s.tif"
    options = {"photometric": "minisblack", "resolutionunit": unit}
    tifffile.imwrite(path, STACK, resolution=(resolution, resolution), **options)
    expected = None if expected is None else pytest.approx(expected)
    assert open_source(path).voxel_size == (None, expected, expected)


def test_a_folder_whose_files_disagree_records_no_size(tmp_path):
    for z, pixels in enumerate((250000, 250001, 500000)):
        tifffile.imwrite(
            tmp_path / f"s_{z}.tif", STACK[z], resolution=(pixels,) * 2, resolutionunit=3
        )
    source = open_source(tmp_path)
    assert source.voxel_size == (None, None, None)
    with pytest.raises(InputError, match="size: its files record different sizes; give it"):
        resolve_voxel_size(source, None)
    (tmp_path / "s_2.tif").unlink()
    assert open_source(tmp_path).voxel_size[1] == pytest.approx(40)


@pytest.mark.parametrize(
    ("units", "values", "expected"),
    [
        (("nm", "µm", "Å"), (200, 0.04, 400), SIZE),
        (("mm", "nm", "μm"), (2e-4, 40, 0.04), SIZE),
        ((None, None, None), (0.2, 0.04, 0.04), SIZE),
        (("pixel", "pixel", "pixel"), (1, 1, 1), (None, None, None)),
        (("reference frame", "nm", "nm"), (1, 40, 40), (None, 40, 40)),
        (("nm", "nm", "nm"), (0, 40, 40), (None, 40, 40)),
    ],
)
def test_ome_xml(tmp_path, units, values, expected):
    metadata = {"axes": "ZYX"}
    for axis, unit, value in zip("ZYX", units, values, strict=True):
        metadata[f"PhysicalSize{axis}"] = value
        if unit:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    tifffile.imwrite(tmp_path / "s.ome.tif", STACK, metadata=metadata)
    for found, wanted in zip(open_source(tmp_path / "s.ome.tif").voxel_size, expected, strict=True):
        assert found == (None if wanted is None else pytest.approx(wanted))


def ome_zarr(path, data, *, scale, translation=None, units=("nanometer",) * 3, whole=None):
    """An OME-Zarr 0.4 image of one level; `whole` are the transformations of all levels."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=data, chunks=data.shape)
    steps = [{"type": "scale", "scale": list(scale)}]
    if translation is not None:
        steps.append({"type": "translation", "translation": list(translation)})
    axes = [
        {"name": a, "type": "space"} | ({"unit": unit} if unit is not None else {})
        for a, unit in zip("zyx", units, strict=True)
    ]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    image = {"version": "0.4", "axes": axes, "datasets": datasets}
    if whole is not None:
        image["coordinateTransformations"] = whole
    group.attrs["multiscales"] = [image]
    return path


@pytest.mark.parametrize(
    ("options", "size", "offset"),
    [
        ({"scale": SIZE}, SIZE, (0, 0, 0)),
        ({"scale": SIZE, "units": ("nm", "nm", "nm")}, SIZE, (0, 0, 0)),
        ({"scale": (0.2, 40, 400), "units": ("micrometer", "nm", "angstrom")}, SIZE, (0, 0, 0)),
        ({"scale": SIZE, "units": (None, None, None)}, (None, None, None), (0, 0, 0)),
        ({"scale": SIZE, "units": ("pixel",) * 3}, (None, None, None), (0, 0, 0)),
        ({"scale": (0, -40, 40)}, (None, None, 40), (0, 0, 0)),
        ({"scale": SIZE, "translation": (400, 40, 0)}, SIZE, (2, 1, 0)),
        (
            {
                "scale": (100, 40, 40),
                "translation": (100, 0, 0),
                "whole": [
                    {"type": "scale", "scale": [2, 1, 1]},
                    {"type": "translation", "translation": [200, 80, 0]},
                ],
            },
            SIZE,
            (2, 2, 0),
        ),
    ],
)
def test_ome_zarr_image_and_its_array(tmp_path, options, size, offset):
    path = ome_zarr(tmp_path / "i.zarr", STACK, **options)
    for place in (path, path / "0"):
        source = open_source(place)
        for found, wanted in zip(source.voxel_size, size, strict=True):
            assert found == (None if wanted is None else pytest.approx(wanted))
        assert source.offset == pytest.approx(offset)


def test_what_is_wrong_in_ome_zarr_is_named(tmp_path):
    steps = [{"type": "translation", "translation": [1, 2, 3]}]
    path = ome_zarr(tmp_path / "i.zarr", STACK, scale=SIZE, whole=steps)
    with pytest.raises(InputError, match=r"coordinateTransformations: .*exactly one scale"):
        open_source(path)


def n5(path, *, attributes, group=None, data=STACK):
    """An N5 dataset with its attributes and those of its group."""
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {
            "dimensions": list(data.shape[::-1]),
            "blockSize": [12, 8, 3],
            "dataType": str(data.dtype),
            "compression": {"type": "raw"},
        },
    }
    ts.open(spec, create=True).result().write(data.T).result()
    volumes.edit_json(path / "attributes.json", **attributes)
    if group is not None:
        (path.parent / "attributes.json").write_text(json.dumps(group))
    return path


FULL_SIZE = {"pixelResolution": {"unit": "nm", "dimensions": [40, 40, 200]}}
COSEM = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": SIZE}

OF_GROUP = {"multiscales": [{"datasets": [{"path": "s1", "transform": COSEM}]}]}


@pytest.mark.parametrize(
    ("level", "attributes", "group", "size", "offset"),
    [
        ("s0", FULL_SIZE, None, SIZE, (0, 0, 0)),
        ("s2", {**FULL_SIZE, "downsamplingFactors": [2, 2, 1]}, None, (200, 80, 80), (0, 0, 0)),
        ("s1", {"downsamplingFactors": [2, 2, 1]}, FULL_SIZE, (200, 80, 80), (0, 0, 0)),
        ("s1", {}, {**FULL_SIZE, "scales": [[1, 1, 1], [2, 2, 1]]}, (200, 80, 80), (0, 0, 0)),
        ("s1", {}, {**FULL_SIZE, "downsamplingFactors": [[1] * 3, [2, 2, 1]]}, (200, 80, 80), None),
        ("s0", {}, FULL_SIZE, SIZE, (0, 0, 0)),
        ("s1", {}, FULL_SIZE, None, None),
        ("raw", {}, FULL_SIZE, None, None),
        ("s0", {"pixelResolution": [1.5, 1.5, 1.5]}, None, None, (0, 0, 0)),
        ("s0", {"pixelResolution": {"dimensions": [40, 40, 200]}}, None, None, (0, 0, 0)),
        ("s0", {"resolution": [0.04, 0.04, 0.2]}, None, None, (0, 0, 0)),
        ("s0", {"resolution": [40, 40, 200], "units": ["nm"] * 3}, None, SIZE, (0, 0, 0)),
        ("s0", {"resolution": [0.04, 0.04, 0.2], "unit": "um"}, None, SIZE, (0, 0, 0)),
        ("s0", {"resolution": [40, 40, 200], "offset": [80, 40, 400]}, None, None, (2, 1, 2)),
        ("s0", {"transform": {**COSEM, "translate": [400, 40, 0]}}, None, SIZE, (2, 1, 0)),
        (
            "s1",
            {"transform": {**COSEM, "ordering": "F", "axes": ["x", "y", "z"], "scale": SIZE[::-1]}},
            None,
            SIZE,
            (0, 0, 0),
        ),
        (
            "s1",
            {},
            {"multiscales": [{"datasets": [{"path": "s1", "transform": COSEM}]}]},
            SIZE,
            None,
        ),
    ],
)
def test_n5_levels(tmp_path, level, attributes, group, size, offset):
    source = open_source(n5(tmp_path / level, attributes=attributes, group=group), axes="xyz")
    assert source.voxel_size == (size or (None, None, None))
    if offset is not None:
        assert source.offset == offset


def test_an_n5_group_without_attributes_is_one(tmp_path):
    n5(tmp_path / "c0" / "s0", attributes=FULL_SIZE)
    source = open_source(tmp_path / "c0")
    assert source.voxel_size == SIZE
    np.testing.assert_array_equal(source.read(1), STACK[1])


@pytest.mark.parametrize(
    ("attributes", "size", "offset"),
    [
        ({"resolution": SIZE}, (None, None, None), (0, 0, 0)),
        ({"resolution": SIZE, "units": ["nm"] * 3}, SIZE, (0, 0, 0)),
        ({"resolution": SIZE, "offset": (400, 80, 40)}, (None, None, None), (2, 2, 1)),
        ({"resolution": SIZE, "unit": "nm", "offset": (0, 0, 0)}, SIZE, (0, 0, 0)),
        ({"voxel_size": (0.2, 0.04, 0.04), "units": ["um"] * 3}, SIZE, (0, 0, 0)),
        ({"pixelResolution": SIZE}, (None, None, None), None),
        ({"resolution": "fine", "offset": 5}, (None, None, None), None),
        ({"element_size_um": (0.2, 0.04, 0.04)}, SIZE, None),
        ({"element_size_um": (0.2, 0, 0.04)}, (200, None, 40), None),
        ({}, (None, None, None), None),
    ],
)
def test_hdf5_and_plain_zarr(tmp_path, attributes, size, offset):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        dataset = file.create_dataset("raw", data=STACK)
        for name, value in attributes.items():
            dataset.attrs[name] = value
    array = zarr.create_array(tmp_path / "s.zarr", data=STACK, chunks=STACK.shape, zarr_format=2)
    array.attrs.update(attributes)
    for name in ("s.h5", "s.zarr"):
        if name == "s.zarr" and "element_size_um" in attributes:
            continue
        source = open_source(tmp_path / name, axes="zyx")
        assert (source.voxel_size, source.offset) == (size, offset)


def test_sizes_of_dimensions_follow_the_axes_that_are_given(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        dataset = file.create_dataset("raw", data=STACK.T)
        dataset.attrs["resolution"] = SIZE[::-1]
        dataset.attrs["units"] = ["nm"] * 3
        dataset.attrs["offset"] = (80, 40, 400)
    source = open_source(tmp_path / "s.h5", axes="xyz")
    assert (source.voxel_size, source.offset) == (SIZE, (2, 1, 2))


def test_imaris(tmp_path):
    with h5py.File(tmp_path / "s.ims", "w") as file:
        level = file.create_group("DataSet/ResolutionLevel 0/TimePoint 0/Channel 0")
        level.create_dataset("Data", data=np.pad(STACK, ((0, 1), (0, 8), (0, 4))))
        image = file.create_group("DataSetInfo/Image")

        def write(group, name, text):
            group.attrs[name] = np.array([c.encode("latin-1") for c in text], "S1")

        for i, (axis, count, size) in enumerate((("X", 12, 0.04), ("Y", 8, 0.04), ("Z", 3, 0.2))):
            write(level, f"ImageSize{axis}", str(count))
            write(image, f"ExtMin{i}", str(2 * size))
            write(image, f"ExtMax{i}", str((2 + count) * size))
        write(image, "Unit", "µm")
    source = open_source(tmp_path / "s.ims/DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data")
    assert source.axes == "zyx"
    assert source.voxel_size == pytest.approx(SIZE)
    assert source.offset == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(
    ("cell", "counts", "expected"),
    [
        ((2000, 400, 400), (1, 1, 1), SIZE),
        ((0, 0, 0), (1, 1, 1), (None, None, None)),
        ((1, 1, 1), (1, 1, 1), (None, None, None)),
        ((2000, 400, 400), (0, 0, 0), (None, None, None)),
        ((2000, 400, 400), (1, 1, 0), (200, 40, None)),
        ((np.nan, -400, 400), (1, 1, 1), (None, None, 40)),
    ],
)
def test_mrc(tmp_path, cell, counts, expected):
    with mrcfile.new(tmp_path / "s.mrc") as file:
        file.set_data(STACK.astype(np.uint16))
        for axis, size, count, length in zip("zyx", cell, counts, STACK.shape, strict=True):
            file.header["cella"][axis] = size * length
            file.header[f"m{axis}"] = length * count
    source = open_source(tmp_path / "s.mrc")
    assert source.voxel_size == expected
    if None in expected:
        with pytest.raises(InputError, match=r"voxel size.*: its (cell is|voxels are 1 A)"):
            resolve_voxel_size(source, None)


def test_a_trusted_flag_wins_with_a_warning(tmp_path, capsys):
    path = ome_zarr(tmp_path / "i.zarr", STACK, scale=(0.2, 0.04, 0.04), units=("mm",) * 3)
    options = {"downsample": 1, "voxel_size": SIZE}
    with pytest.raises(InputError, match=r"records 200000,40000,40000 nm .*add --trust_flag"):
        convert(path, tmp_path / "v.zarr", ConvertOptions(**options))
    convert(path, tmp_path / "v.zarr", ConvertOptions(**options, trust_flag=True))
    assert "warning: " in capsys.readouterr().out
    volume = open_volume(tmp_path / "v.zarr")
    assert volume.voxel_size == SIZE
    recorded = json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())
    assert "against 200000,40000,40000 nm" in json.dumps(recorded["attributes"])


def test_trusted_axes_win_and_take_no_sizes_of_the_record(tmp_path, capsys):
    data = np.moveaxis(STACK, 0, 2)
    path = ome_zarr(tmp_path / "i.zarr", data, scale=SIZE)
    options = {"downsample": 1, "axes": "yxz"}
    with pytest.raises(InputError, match=r"--axes=yxz: .* records zyx.*add --trust_flag"):
        convert(path, tmp_path / "v.zarr", ConvertOptions(**options))
    with pytest.raises(InputError, match="its axes are taken otherwise than it records them"):
        convert(path, tmp_path / "v.zarr", ConvertOptions(**options, trust_flag=True))
    trusted = ConvertOptions(**options, trust_flag=True, voxel_size=SIZE)
    convert(path, tmp_path / "v.zarr", trusted)
    assert "records its axes as zyx; --trust_flag: --axes=yxz is taken" in capsys.readouterr().out
    found = open_volume(tmp_path / "v.zarr").image("full").read().result()
    np.testing.assert_array_equal(found, STACK)
