"""Chunks that are not stored: named where they were lost, read where they were left out."""

import functools
import gzip
import json
import shutil

import numpy as np
import pytest
import tensorstore as ts
import zarr

from tests.data.formats.test_remote import served  # noqa: F401
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.holes import ranges, settle_holes
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

SHAPE = (8, 40, 48)
# No voxel is 0.
TISSUE = np.random.default_rng(0).integers(1, 256, SHAPE, np.uint8)
BARE = {"axes": "zyx", "voxel_size": (50.0, 8.0, 10.0)}
CHUNKS = (2, 16, 16)


def _zarr(path, data=TISSUE, *, version=3, separator=None, **options):
    if separator:
        name = "v2" if version == 2 else "default"
        options["chunk_key_encoding"] = {"name": name, "separator": separator}
    array = zarr.create_array(
        path, shape=data.shape, chunks=CHUNKS, dtype=data.dtype, zarr_format=version, **options
    )
    array[:] = data
    return path


def _tensorstore(path, spec, data):
    kvstore = {"driver": "file", "path": f"{path}/"}
    ts.open(spec | {"kvstore": kvstore}, create=True).result().write(data).result()
    return path


def _n5(path, data=TISSUE):
    metadata = {
        "dataType": "uint8",
        "dimensions": list(data.shape[::-1]),
        "blockSize": list(CHUNKS[::-1]),
        "compression": {"type": "gzip"},
        "axes": ["x", "y", "z"],
    }
    return _tensorstore(path, {"driver": "n5", "metadata": metadata}, data.T)


def _precomputed(path, data=TISSUE, **scale):
    spec = {
        "driver": "neuroglancer_precomputed",
        "multiscale_metadata": {"data_type": "uint8", "num_channels": 1, "type": "image"},
        "scale_metadata": {
            "size": list(data.shape[::-1]),
            "resolution": [10, 8, 50],
            "chunk_size": list(CHUNKS[::-1]),
            "voxel_offset": [100, 7, 3],
            "encoding": "raw",
            "key": "0",
            **scale,
        },
    }
    return _tensorstore(path, spec, data.T[..., None])


def _convert(path, output, **options):
    given = BARE | options
    convert(path, output, ConvertOptions(downsample=1, overwrite=True, **given))
    return open_volume(output).image(FULL).read().result()


# How it is written, which file is lost, and how it is named.
LOST = {
    "zarr 2, dots": (functools.partial(_zarr, version=2), "2.1.1", {}),
    "zarr 2, slashes": (functools.partial(_zarr, version=2, separator="/"), "2/1/1", {}),
    "zarr 3": (_zarr, "c/2/1/1", {}),
    "zarr 3, dots": (functools.partial(_zarr, separator="."), "c.2.1.1", {}),
    "zarr 3, fill 9": (functools.partial(_zarr, fill_value=9), "c/2/1/1", {}),
    "N5": (_n5, "1/1/2", {"axes": None}),
    "precomputed": (_precomputed, "0/116-132_23-39_7-9", {"axes": None}),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_chunk_that_is_lost_is_named(tmp_path, kind, capsys):
    write, name, options = LOST[kind]
    if "precomputed" in kind:
        options = options | {"voxel_size": None}
    path = write(tmp_path / "in")
    np.testing.assert_array_equal(_convert(path, tmp_path / "v.zarr", **options), TISSUE)
    assert "chunks" not in capsys.readouterr().out
    (path / name).unlink()
    with pytest.raises(InputError) as caught:
        _convert(path, tmp_path / "v.zarr", **options)
    text = str(caught.value)
    assert "1 of 36 chunks is missing, in slices 4-5" in text
    assert "rows 16 to 31, columns 16 to 31" in text and f"file {name}" in text
    assert "tissue" in text and "--missing_chunks=fill" in text
    filled = _convert(path, tmp_path / "v.zarr", missing_chunks="fill", **options)
    expected = TISSUE.copy()
    expected[4:6, 16:32, 16:32] = 9 if "fill 9" in kind else 0
    np.testing.assert_array_equal(filled, expected)
    assert "warning" in capsys.readouterr().out


def test_slices_that_are_lost_are_named(tmp_path):
    path = _zarr(tmp_path / "in")
    shutil.rmtree(path / "c" / "1")
    shutil.rmtree(path / "c" / "3")
    with pytest.raises(InputError, match=r"18 of 36 chunks are missing, in slices 2-3, 6-7 "):
        _convert(path, tmp_path / "v.zarr")
    shutil.rmtree(path / "c")
    with pytest.raises(InputError, match=r"not one of its 36 chunks is stored"):
        _convert(path, tmp_path / "v.zarr")


def test_shards_and_chunks_within_them(tmp_path):
    shards = (4, 32, 48)
    path = _zarr(tmp_path / "whole", shards=shards)
    np.testing.assert_array_equal(_convert(path, tmp_path / "v.zarr"), TISSUE)
    (path / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(InputError, match=r"12 of 36 chunks are missing, in slices 4-7 "):
        _convert(path, tmp_path / "v.zarr")
    hollow = TISSUE.copy()
    hollow[2:4, 16:32, 32:48] = 0
    path = _zarr(tmp_path / "hollow", hollow, shards=shards)
    with pytest.raises(InputError, match=r"1 of 36 chunks is missing, in slices 2-3 .*\(1, 1, 2\)"):
        _convert(path, tmp_path / "v.zarr")


@pytest.mark.parametrize("shards", [None, (4, 32, 48)])
def test_empty_chunks_that_a_writer_left_out_are_read(tmp_path, shards, capsys):
    bordered = TISSUE.copy()
    # Aligned slices: black beyond them, and a little within the chunks that are stored.
    bordered[:, :, 30:] = 0
    bordered[:, :18] = 0
    path = _zarr(tmp_path / "in", bordered, shards=shards)
    np.testing.assert_array_equal(_convert(path, tmp_path / "v.zarr"), bordered)
    out = capsys.readouterr().out
    assert "warning" in out and "20 of 36 chunks are missing" in out
    assert "read as 0, which is all that lies beside them" in out


def test_labels_do_without_their_empty_chunks(tmp_path, capsys):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 4:12, 4:12] = 1
    path = _zarr(tmp_path / "labels", labels)
    images = _zarr(tmp_path / "in")
    _convert(images, tmp_path / "v.zarr", labels=[("nuclei", path)])
    out = capsys.readouterr().out
    assert "32 of 36 chunks are missing" in out and "empty background" in out
    assert "warning" not in out


def test_labels_that_end_in_a_straight_line_are_doubtful(tmp_path, capsys):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 4:28, 4:28] = 1
    path = _zarr(tmp_path / "labels", labels)
    (path / "c" / "1" / "0" / "1").unlink()
    images = _zarr(tmp_path / "in")
    _convert(images, tmp_path / "v.zarr", labels=[("nuclei", path)])
    out = capsys.readouterr().out
    assert "warning" in out and "end in a straight line at 2 of them" in out


def test_names_that_do_not_fit_the_metadata(tmp_path):
    path = _zarr(tmp_path / "in", version=2, separator="/")
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"dimension_separator": "."}))
    with pytest.raises(InputError, match=r'such as 0/0/0; correct "dimension_separator" .* "/"'):
        _convert(path, tmp_path / "v.zarr")
    path = _precomputed(tmp_path / "packed")
    for file in list((path / "0").iterdir()):
        (path / "0" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    with pytest.raises(InputError, match=r"unpack the \.gz files"):
        _convert(path, tmp_path / "v.zarr", axes=None, voxel_size=None)


def test_where_chunks_cannot_be_listed_the_first_that_is_missing_ends_it(
    tmp_path,
    served,  # noqa: F811
    capsys,
):
    folder, address = served
    path = _zarr(folder / "in")
    (path / "c" / "2" / "1" / "1").unlink()
    opened = open_source(f"{address}/in", axes="zyx")
    strict = settle_holes(opened, missing_chunks="refuse", label=False)
    assert "its chunks cannot be listed" in capsys.readouterr().out
    np.testing.assert_array_equal(strict.read(0), TISSUE[0])
    with pytest.raises(InputError, match=r"slice 4: a chunk is missing .*--missing_chunks=fill"):
        strict.read(4)
    filled = settle_holes(opened, missing_chunks="fill", label=False).read(4)
    assert (filled[16:32, 16:32] == 0).all()
    # Labels may do without their empty chunks, there as here.
    labels = open_source(f"{address}/in", axes="zyx", label=True)
    assert settle_holes(labels, missing_chunks="refuse", label=True) is labels


def test_sharded_precomputed_is_read_strictly(tmp_path):
    hollow = TISSUE.copy()
    hollow[2:4, 16:32, 16:32] = 0
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 1,
        "minishard_bits": 2,
        "shard_bits": 1,
        "hash": "identity",
    }
    path = _precomputed(tmp_path / "in", hollow, sharding=sharding)
    recorded = {"axes": None, "voxel_size": None}
    with pytest.raises(InputError, match=r"slice 2: a chunk is missing"):
        _convert(path, tmp_path / "v.zarr", **recorded)
    filled = _convert(path, tmp_path / "v.zarr", missing_chunks="fill", **recorded)
    np.testing.assert_array_equal(filled, hollow)


def test_ranges():
    assert ranges([8, 9, 10, 20]) == "8-10, 20"
    assert ranges([0, 2, 4, 6], most=2) == "0, 2 and 2 more ranges"
