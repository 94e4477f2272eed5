"""Zarr in zip files, and what of chunked arrays cannot be read."""

import json
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr

from tests.data import volumes
from tests.data.volumes import STACK
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError


def _zip(path, folder, *, prefix="", how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as file:
        for each in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(each, prefix + str(each.relative_to(folder)))
    return path


def _read(source):
    return np.stack([source.read(z) for z in range(source.shape[0])])


@pytest.mark.parametrize("write", [volumes.ome_zarr_04, volumes.ome_zarr_05, volumes.n5])
@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_volumes_in_zip_files(tmp_path, write, how):
    folder = write(tmp_path / "in")
    path = _zip(tmp_path / "in.zarr.zip", folder, how=how)
    convert(path, tmp_path / "v.zarr", ConvertOptions(downsample=1))
    volume = open_volume(tmp_path / "v.zarr")
    np.testing.assert_array_equal(volume.image(FULL).read().result(), STACK)
    assert volume.voxel_size == volumes.VOXEL_SIZE


def test_a_folder_in_a_zip_file(tmp_path):
    folder = volumes.ome_zarr_05(tmp_path / "in")
    path = _zip(tmp_path / "a.zip", folder, prefix="vol.zarr/")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/vol.zarr/._zarr.json", b"x")
    for where in (path, path / "vol.zarr"):
        np.testing.assert_array_equal(_read(open_source(where)), STACK)
    with pytest.raises(InputError, match=r"without a Zarr, N5 or precomputed volume.*vol\.zarr"):
        open_source(path / "other")


def test_zip_files_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("z_0.tif", b"x")
    with pytest.raises(InputError, match=r"it holds z_0\.tif\); unzip it"):
        open_source(tmp_path / "a.zip")
    whole = _zip(tmp_path / "b.zip", volumes.ome_zarr_05(tmp_path / "in")).read_bytes()
    (tmp_path / "cut.zarr.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.zarr\.zip: truncated or damaged zip file"):
        open_source(tmp_path / "cut.zarr.zip")


def test_a_chunk_that_is_missing_in_a_zip_file(tmp_path):
    folder = volumes.ome_zarr_05(tmp_path / "in")
    (folder / "0" / "c" / "1" / "1" / "1").unlink()
    path = _zip(tmp_path / "a.zarr.zip", folder)
    with pytest.raises(InputError, match=r"1 of 27 chunks is missing, in slices 2-3"):
        convert(path, tmp_path / "v.zarr", ConvertOptions(downsample=1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"zarr_format": 2, "compressors": numcodecs.LZ4()}, "coded with lz4,"),
        ({"zarr_format": 2, "filters": [numcodecs.Delta("u1")]}, "coded with the filter delta,"),
        ({"zarr_format": 3, "fake": "numcodecs.zfpy"}, "coded with numcodecs.zfpy,"),
        ({"zarr_format": 3, "fake": "vlen-bytes", "shards": (4, 32, 32)}, "coded with vlen-bytes,"),
    ],
)
def test_codecs_that_cannot_be_read_are_named(tmp_path, options, named):
    options = dict(options)
    fake = options.pop("fake", None)
    zarr.create_array(tmp_path / "in", data=STACK, chunks=(2, 16, 16), **options)
    if fake:
        file = tmp_path / "in" / "zarr.json"
        metadata = json.loads(file.read_text())
        codecs = metadata["codecs"]
        if "shards" in options:
            codecs = codecs[0]["configuration"]["codecs"]
        codecs[-1] = {"name": fake, "configuration": {}}
        file.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=named) as caught:
        open_source(tmp_path / "in", axes="zyx")
    assert "damaged" not in str(caught.value) and "save it again with one of" in str(caught.value)


def test_codecs_of_n5_and_precomputed(tmp_path):
    (tmp_path / "n5").mkdir()
    metadata = {"dimensions": [9, 8, 7], "blockSize": [9, 8, 7], "dataType": "uint8"}
    text = json.dumps(metadata | {"compression": {"type": "lz4", "blockSize": 65536}})
    (tmp_path / "n5" / "attributes.json").write_text(text)
    with pytest.raises(InputError, match=r"coded with lz4, .* raw, gzip"):
        open_source(tmp_path / "n5", axes="xyz")
    path = volumes.precomputed(tmp_path / "in")
    info = json.loads((path / "info").read_text())
    info["scales"][0]["encoding"] = "compresso"
    (path / "info").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"coded with compresso, .*compressed_segmentation"):
        open_source(path)


def test_values_that_are_no_numbers(tmp_path):
    data = np.zeros((4, 8, 8), [("a", "u1"), ("b", "u2")])
    zarr.create_array(tmp_path / "in", data=data, zarr_format=2)
    with pytest.raises(InputError, match=r"values of several fields \(a, b\); numbers are needed"):
        open_source(tmp_path / "in", axes="zyx")


@pytest.mark.parametrize("options", [{"order": "F"}, {"compressors": None}, {"dtype": ">u2"}])
def test_orders_of_values(tmp_path, options):
    dtype = options.get("dtype", "u1")
    rest = {k: v for k, v in options.items() if k != "dtype"}
    data = STACK.astype(dtype)
    zarr.create_array(tmp_path / "in", data=data, chunks=(2, 16, 16), zarr_format=2, **rest)
    np.testing.assert_array_equal(_read(open_source(tmp_path / "in", axes="zyx")), STACK)


def test_bool_labels(tmp_path):
    zarr.create_array(tmp_path / "in", data=STACK > 99, chunks=(2, 16, 16), zarr_format=2)
    source = open_source(tmp_path / "in", axes="zyx", label=True)
    np.testing.assert_array_equal(_read(source), STACK > 99)
