"""Imaris files: without the padding, with the voxel size of the extent."""

import h5py
import numpy as np
import pytest

from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

SHAPE = (5, 33, 40)
PADDED = (8, 48, 48)
VOXEL_SIZE = (50.0, 8.0, 10.0)
STACK = np.random.default_rng(0).integers(1, 256, SHAPE, np.uint8)
CHANNEL = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"


def _characters(text):
    return np.array([c.encode() for c in text], "S1")


def _write(path, *, channels=1, times=1, levels=1, unit="um", per_um=1.0, **sizes):
    """As Imaris does; `sizes` are attributes of the channels."""
    given = {f"ImageSize{a}": str(n) for a, n in zip("ZYX", SHAPE, strict=True)} | sizes
    with h5py.File(path, "w") as file:
        for level in range(levels):
            for time in range(times):
                for channel in range(channels):
                    name = f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}"
                    group = file.create_group(name)
                    padded = np.zeros(PADDED, np.uint8)
                    padded[: SHAPE[0], : SHAPE[1], : SHAPE[2]] = STACK + channel
                    step = 2**level
                    group.create_dataset("Data", data=padded[:, ::step, ::step], chunks=(4, 16, 16))
                    for key, value in given.items():
                        n = int(value) if key == "ImageSizeZ" else -(-int(value) // step)
                        group.attrs[key] = _characters(str(n))
        info = file.create_group("DataSetInfo/Image")
        info.attrs["Unit"] = _characters(unit)
        for axis, count, size in zip((2, 1, 0), SHAPE, VOXEL_SIZE, strict=True):
            low = 7.5 * axis
            info.attrs[f"ExtMin{axis}"] = _characters(f"{low:.6f}")
            high = low + count * size / 1000 * per_um
            info.attrs[f"ExtMax{axis}"] = _characters(f"{high:.6f}")
            info.attrs["XYZ"[axis]] = _characters(str(count))
        file.create_dataset("Thumbnail/Data", data=np.zeros((4, 4), np.uint8))
    return path


def _read(source):
    return np.stack([source.read(z) for z in range(source.shape[0])])


@pytest.mark.parametrize("inner", ["", CHANNEL, f"{CHANNEL}/Data"])
def test_true_size_and_voxel_size(tmp_path, inner, capsys):
    path = _write(tmp_path / "a.ims")
    convert(path / inner, tmp_path / "v.zarr", ConvertOptions(downsample=1))
    volume = open_volume(tmp_path / "v.zarr")
    np.testing.assert_array_equal(volume.image(FULL).read().result(), STACK)
    np.testing.assert_allclose(volume.voxel_size, VOXEL_SIZE, rtol=1e-4)
    assert "padded by Imaris to 8 x 48 x 48" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("unit", "per_um", "known"),
    [("um", 1, True), ("mm", 1e-3, True), ("nm", 1e3, True), ("", 1, False), ("parsec", 1, False)],
)
def test_units(tmp_path, unit, per_um, known):
    source = open_source(_write(tmp_path / "a.ims", unit=unit, per_um=per_um))
    if not known:
        assert source.voxel_size == (None, None, None)
        return
    # The extent is written with 6 digits behind the point.
    np.testing.assert_allclose(source.voxel_size, VOXEL_SIZE, rtol=1e-2 if unit == "mm" else 1e-4)


def test_several_channels_and_times_and_levels(tmp_path):
    path = _write(tmp_path / "a.ims", channels=2, levels=2)
    with pytest.raises(InputError, match=rf"2 channels and time points; give one, .*{CHANNEL}"):
        open_source(path)
    source = open_source(path / CHANNEL.replace("Channel 0", "Channel 1"))
    np.testing.assert_array_equal(_read(source), STACK + 1)
    coarse = open_source(path / CHANNEL.replace("Level 0", "Level 1"))
    np.testing.assert_array_equal(_read(coarse), STACK[:, ::2, ::2])
    np.testing.assert_allclose(coarse.voxel_size, (50, 8 * 33 / 17, 20), rtol=1e-4)
    with pytest.raises(InputError, match="2 channels and time points"):
        open_source(_write(tmp_path / "b.ims", times=2))
    with pytest.raises(InputError, match="no image 'DataSet/ResolutionLevel 3'"):
        open_source(path / "DataSet/ResolutionLevel 3")


def test_sizes_that_are_missing_or_wrong(tmp_path):
    path = _write(tmp_path / "a.ims")
    with h5py.File(path, "r+") as file:
        for axis in "XYZ":
            del file[CHANNEL].attrs[f"ImageSize{axis}"]
    assert open_source(path).shape == SHAPE
    with h5py.File(path, "r+") as file:
        for axis in "XYZ":
            del file["DataSetInfo/Image"].attrs[axis]
    with pytest.raises(InputError, match=r"its true size .* is not recorded"):
        open_source(path)
    with pytest.raises(InputError, match=r"5 x 33 x 400 .* are recorded, but 8 x 48 x 48"):
        open_source(_write(tmp_path / "b.ims", ImageSizeX="400"))


def test_labels_and_a_chunk_that_was_never_written(tmp_path):
    path = _write(tmp_path / "a.ims")
    np.testing.assert_array_equal(_read(open_source(path, label=True)), STACK)
    with h5py.File(path, "r+") as file:
        del file[CHANNEL]["Data"]
        raw = file[CHANNEL].create_dataset("Data", PADDED, "u1", chunks=(4, 16, 16))
        raw[:, :16] = 7
    with pytest.raises(InputError, match=r"12 of 18 chunks are missing, in slices 0-4 .*tissue"):
        convert(path, tmp_path / "v.zarr", ConvertOptions(downsample=1))
