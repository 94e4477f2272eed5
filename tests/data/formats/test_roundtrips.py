"""Every format, written by its own library, becomes the same volume."""

import json

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from tests.data import volumes
from tests.data.volumes import FORMATS, STACK, VOXEL_SIZE
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats import value_range
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError

FORMAT = pytest.mark.parametrize("write, options", FORMATS.values(), ids=FORMATS.keys())


def _convert(path, output, **options):
    convert(path, output, ConvertOptions(downsample=1, **options))
    return open_volume(output)


def _image(volume):
    return volume.image(FULL).read().result()


@FORMAT
def test_pixels_voxel_size_and_axes_come_through(tmp_path, write, options, capsys):
    volume = _convert(write(tmp_path / "in"), tmp_path / "v.zarr", **options)
    np.testing.assert_array_equal(_image(volume), STACK)
    np.testing.assert_allclose(volume.voxel_size, VOXEL_SIZE, rtol=1e-6)
    printed = capsys.readouterr().out
    assert "axes        zyx (" in printed and "voxel size  50,8,10 nm" in printed


@FORMAT
def test_sixteen_bit(tmp_path, write, options):
    data = STACK.astype(np.uint16) * 257
    source = open_source(write(tmp_path / "in", data), axes=options.get("axes"))
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(np.stack([source.read(z) for z in (4, 0)]), data[[4, 0]])


@FORMAT
def test_labels_of_every_format(tmp_path, write, options):
    labels = (STACK > 128).astype(np.uint8) * 255
    labels[1] = 7
    labels[2, :8, :8] = 7
    path = write(tmp_path / "labels", labels)
    volume = _convert(
        volumes.tiff_stack(tmp_path / "in"),
        tmp_path / "v.zarr",
        voxel_size=VOXEL_SIZE,
        labels=[("nuclei", path)],
        unlabelled_values={"nuclei": 7},
        axes=options.get("axes"),
    )
    assert volume.labelled_slices("nuclei") == (0, 2, 3, 4)
    stored = volume.label("nuclei", FULL).read().result()
    expected = (STACK > 128).astype(np.uint8)
    expected[labels == 7] = 255
    np.testing.assert_array_equal(stored, expected)


def test_a_training_pixel_drawn_from_an_unlabelled_one_is_unlabelled(tmp_path):
    labels = np.ones((2, 64, 64), np.uint8)
    labels[:, :, 40:] = 0
    labels[0, 9, 21] = 9
    volume = volumes.tiff_stack(tmp_path / "in", np.tile(STACK[:2, :32, :32], (1, 2, 2)))
    path = volumes.tiff_stack(tmp_path / "labels", labels)
    options = ConvertOptions(
        voxel_size=VOXEL_SIZE, labels=[("n", path)], unlabelled_values={"n": 9}
    )
    convert(volume, tmp_path / "v.zarr", options)
    stored = open_volume(tmp_path / "v.zarr").label("n", TRAINING).read().result()
    expected = np.repeat((np.arange(16) < 10).astype(np.uint8)[None], 16, 0)
    np.testing.assert_array_equal(stored[1], expected)
    expected[2, 5] = 255
    np.testing.assert_array_equal(stored[0], expected)


@pytest.mark.parametrize("axes", ["xyz", "yxz", "zxy", "ctzyx", "xyzct"])
@pytest.mark.parametrize("write", [volumes.zarr_2, volumes.zarr_3, volumes.hdf5])
def test_any_order_of_axes(tmp_path, axes, write):
    order = ["zyx".index(a) for a in axes if a in "zyx"]
    data = STACK.transpose(order)
    for index, axis in enumerate(axes):
        if axis in "ct":
            data = np.expand_dims(data, index)
    path = tmp_path / "in"
    if write is volumes.hdf5:
        path = path.with_suffix(".h5")
        with h5py.File(path, "w") as file:
            file["raw"] = data
    else:
        version = 2 if write is volumes.zarr_2 else 3
        zarr.create_array(path, data=data, chunks=data.shape, zarr_format=version)
    with pytest.raises(InputError, match=r"does not record which axis is which"):
        open_source(path)
    source = open_source(path, axes=axes)
    np.testing.assert_array_equal(np.stack([source.read(z) for z in range(5)]), STACK)
    with pytest.raises(InputError, match="--axes=zyy: must have each of z, y and x once"):
        open_source(path, axes="zyy")
    other = "zyx" if len(axes) > 3 else "tzyx"
    with pytest.raises(InputError, match=rf"axes {other} of shape"):
        open_source(path, axes=other)


@pytest.mark.parametrize("name", ["OME-Zarr 0.5", "N5", "precomputed", "HDF5", "MRC"])
def test_axes_that_contradict_the_record_are_refused(tmp_path, name):
    path = FORMATS[name][0](tmp_path / "in")
    with pytest.raises(InputError, match=r"--axes=yzx: .* records"):
        open_source(path, axes="yzx")


def test_voxel_size_that_contradicts_the_record_is_refused(tmp_path):
    path = volumes.mrc(tmp_path / "in")
    with pytest.raises(InputError, match=r"--voxel_size=50,8,9: .*records 50,8,10"):
        _convert(path, tmp_path / "v.zarr", voxel_size=(50, 8, 9))


def test_n5_of_the_cosem_project(tmp_path):
    path = volumes.n5(tmp_path / "in")
    transform = {"axes": ["z", "y", "x"], "scale": [50, 8, 10], "units": ["nm"] * 3}
    attributes = json.loads((path / "attributes.json").read_text())
    del attributes["axes"], attributes["pixelResolution"]
    (path / "attributes.json").write_text(json.dumps(attributes))
    with pytest.raises(InputError, match="does not record which axis is which"):
        open_source(path)
    volumes.edit_json(path / "attributes.json", transform=transform)
    source = open_source(path)
    assert source.voxel_size == VOXEL_SIZE and source.axes == "xyz"
    np.testing.assert_array_equal(source.read(3), STACK[3])


def test_the_finest_level_of_an_n5_group(tmp_path):
    path = volumes.n5(tmp_path / "in.n5" / "raw" / "s0")
    (path.parent / "attributes.json").write_text(json.dumps({"resolution": [10, 8, 50]}))
    (tmp_path / "in.n5" / "attributes.json").write_text(json.dumps({"n5": "2.0.0"}))
    np.testing.assert_array_equal(open_source(path.parent).read(1), STACK[1])
    with pytest.raises(InputError, match=r"in\.n5: an N5 group.*it holds: .*raw"):
        open_source(tmp_path / "in.n5")
    with pytest.raises(InputError, match=r"no such array; .*in\.n5 holds: raw"):
        open_source(tmp_path / "in.n5" / "labels")


def test_hdf5_dataset_by_name(tmp_path):
    path = volumes.hdf5(tmp_path / "in")
    with h5py.File(path, "a") as file:
        file["volumes/labels"] = np.zeros(volumes.SHAPE, np.uint8)
    np.testing.assert_array_equal(open_source(path / "volumes" / "raw").read(2), STACK[2])
    known = r"there are: .*volumes/labels \(5, 40, 48\) uint8; volumes/raw"
    with pytest.raises(InputError, match=rf"2 datasets to choose from.*{known}"):
        open_source(path)
    with pytest.raises(InputError, match=rf"no dataset 'volumes/nothing'; {known}"):
        open_source(path / "volumes" / "nothing")


def test_hdf5_axes_of_ilastik_and_dimension_labels(tmp_path):
    with h5py.File(tmp_path / "i.h5", "w") as file:
        dataset = file.create_dataset("data", data=STACK.transpose(2, 1, 0)[..., None])
        dataset.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "xyzc"]})
    source = open_source(tmp_path / "i.h5")
    assert source.axes == "xyzc"
    np.testing.assert_array_equal(source.read(4), STACK[4])
    with h5py.File(tmp_path / "d.h5", "w") as file:
        dataset = file.create_dataset("data", data=STACK.transpose(1, 0, 2))
        for dim, name in zip(dataset.dims, ("y", "z", "x"), strict=True):
            dim.label = name
    source = open_source(tmp_path / "d.h5")
    assert source.axes == "yzx"
    np.testing.assert_array_equal(source.read(4), STACK[4])


def test_hdf5_codec_that_is_missing_is_named(tmp_path, monkeypatch):
    path = volumes.hdf5(tmp_path / "in")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(InputError, match=r"compressed with deflate .* pip install hdf5plugin"):
        open_source(path)


def test_tiff_codec_that_is_missing_is_named(tmp_path, monkeypatch):
    path = volumes.tiff_stack(tmp_path / "in", compression="lzw")
    source = open_source(path)

    def missing(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(InputError, match=r"slice 0: .* pip install imagecodecs"):
        source.read(0)


def test_mrc_of_other_axes_and_of_imod(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(STACK.transpose(1, 0, 2).astype(np.uint16))
        file.header.mapr, file.header.maps = 3, 2
        file.voxel_size = (100, 80, 500)
    source = open_source(tmp_path / "a.mrc")
    assert source.axes == "yzx" and source.voxel_size == VOXEL_SIZE
    np.testing.assert_array_equal(source.read(1), STACK[1])
    with mrcfile.new(tmp_path / "i.mrc") as file:
        file.set_data(STACK.view(np.int8))
        extra = bytearray(file.header.extra2.tobytes())
        extra[40:48] = np.array([1146047817, 0], "<i4").tobytes()
        file.header.extra2 = np.void(bytes(extra))
    source = open_source(tmp_path / "i.mrc")
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(source.read(1), STACK[1])


RANGED = [n for n in FORMATS if n not in ("precomputed", "N5")]


@pytest.mark.parametrize("name", RANGED)
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_signed_and_float_values_need_a_range(tmp_path, name, dtype, capsys):
    write, options = FORMATS[name]
    data = (STACK.astype(np.float32) - 128).astype(dtype)
    path = write(tmp_path / "in", data)
    with pytest.raises(InputError, match=rf"{dtype}.*--value_range=LOW,HIGH"):
        open_source(path, axes=options.get("axes"))
    volume = _convert(path, tmp_path / "v.zarr", value_range=(-100, 100), **options)
    white = 255 if dtype == "int8" else 65535
    assert volume.dtype_max == white
    expected = np.rint((np.clip(data.astype(float), -100, 100) + 100) / 200 * white)
    assert np.abs(_image(volume) - expected).max() <= (0 if dtype == "int8" else 1)
    assert _image(volume).min() == 0 and _image(volume).max() == white
    printed = capsys.readouterr().out
    assert "-100 to 100 become 0 to" in printed and "warning: that is much" in printed


def test_ranges_that_make_no_sense(tmp_path):
    path = volumes.mrc(tmp_path / "in", STACK.astype(np.float32))
    for wrong in ((5, 5), (9, 1), (0, float("nan"))):
        with pytest.raises(InputError, match="LOW below HIGH"):
            open_source(path, value_range=wrong)
    with pytest.raises(InputError, match="whose values are kept as they are"):
        open_source(volumes.hdf5(tmp_path / "u"), value_range=(0, 100))
    data = STACK.astype(np.float32)
    data[2, 3, 4] = np.nan
    source = open_source(volumes.hdf5(tmp_path / "n", data), value_range=(0, 255))
    source.read(1)
    with pytest.raises(InputError, match=r"slice 2: 1 values are not numbers"):
        source.read(2)
    with pytest.raises(InputError, match="complex64"):
        value_range.make_value_range("p", np.dtype(np.complex64), (0, 1))
