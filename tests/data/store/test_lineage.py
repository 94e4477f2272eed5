"""Copies of a volume are known as such, and other volumes are not taken for them."""

import json

import numpy as np
import pytest

from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.lineage import (
    PREPROCESSED,
    REGRADED,
    SAME_IMAGES,
    Identity,
    find_marked,
    identity,
    marks,
    relation,
)
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.data.store.volume_writer import create_volume

DEPTH = 8


def _images(seed=0, depth=DEPTH, size=(24, 32)):
    """Noise of another mean and deviation in each slice."""
    rng = np.random.default_rng(seed)
    levels = zip(rng.uniform(90, 150, depth), rng.uniform(10, 25, depth), strict=True)
    return np.clip([rng.normal(m, s, size) for m, s in levels], 0, 255).astype(np.uint8)


def _write(path, images, *, names=None, source="", attributes=None):
    options = {"voxel_size": (40, 10, 10), "downsample": 1}
    with create_volume(
        path,
        shape=images.shape,
        dtype=images.dtype,
        slice_names=names,
        source=source,
        attributes=attributes,
        **options,
    ) as writer:
        for z, plane in enumerate(images):
            writer.write(z, plane)
    return open_volume(path)


@pytest.fixture
def volume(tmp_path):
    return _write(tmp_path / "first.zarr", _images())


def _relation(volume, path, images, **options):
    return relation(identity(volume), identity(_write(path, images, **options)))


def test_a_copy_of_a_copy_is_known_both_ways(volume, tmp_path):
    for name, source in (("a", "first"), ("b", "a"), ("c", "first")):
        options = PreprocessOptions(histogram="equalize" if name == "a" else "clahe")
        preprocess(tmp_path / f"{source}.zarr", tmp_path / f"{name}.zarr", options)
    known = {n: identity(open_volume(tmp_path / f"{n}.zarr")) for n in ("first", "a", "b", "c")}
    for one in known:
        for other in known:
            expected = SAME_IMAGES if one == other else PREPROCESSED
            assert relation(known[one], known[other]) == expected
    assert len(known["b"].fingerprints) == 3


def test_an_identity_survives_json(volume):
    known = identity(volume)
    assert Identity.from_dict(json.loads(json.dumps(vars(known)))) == known


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.round(x * 0.6).astype(np.uint8),
        lambda x: np.floor(x * 0.7 + 20).astype(np.uint8),
        lambda x: x.astype(np.uint16) * 257,
        lambda x: x.astype(np.uint16) * 16,
        lambda x: np.clip(x.astype(float) * 1.5 - 60, 0, 255).astype(np.uint8),
        lambda x: 255 - x,
        lambda x: np.round(x.reshape(len(x), 12, 2, 16, 2).mean((2, 4))).astype(np.uint8),
    ],
    ids=["darker", "gain and offset", "16 bit", "12 of 16 bit", "clipped", "negative", "binned"],
)
def test_other_grey_values_of_the_same_slices_are_known(volume, tmp_path, change):
    assert _relation(volume, tmp_path / "other.zarr", change(_images())) == REGRADED


def test_other_images_are_not_taken_for_the_same(volume, tmp_path):
    others = {
        "another": _images(1),
        "turned over": _images()[::-1],
        "one slice more": _images(depth=DEPTH + 1),
        "smaller": _images(2, size=(12, 16)),
    }
    for name, images in others.items():
        assert _relation(volume, tmp_path / f"{name}.zarr", images) is None, name
    # Of few slices, any go together.
    few = [_write(tmp_path / f"few{n}.zarr", _images(n, depth=2)) for n in (0, 1)]
    assert relation(*map(identity, few)) is None


def test_equal_names_or_sources_leave_a_doubt(tmp_path):
    names = [f"s_{z}.tif" for z in range(DEPTH)]
    first = _write(tmp_path / "1.zarr", _images(0), names=names, source="raw")
    found = _relation(first, tmp_path / "2.zarr", _images(1), names=names)
    assert found is not None and not found.same and "names and size" in found.text
    found = _relation(first, tmp_path / "3.zarr", _images(2, size=(24, 24)), source="raw")
    assert found is not None and not found.same and "the same source, raw" in found.text
    # Slices of one file have no names.
    numbered = [f"{z:04d}" for z in range(DEPTH)]
    bare = [_write(tmp_path / f"n{n}.zarr", _images(n), names=numbered) for n in (0, 1)]
    assert relation(*map(identity, bare)) is None


def test_slices_are_known_at_other_places(volume, tmp_path):
    images = _images()
    images[3] = 7
    first = _write(tmp_path / "with_flat.zarr", images)
    marked = marks(first, (1, 3, 6))
    turned = _write(tmp_path / "turned.zarr", images[::-1][:, ::-1])
    assert find_marked(turned, marked) == {1: 6, 6: 1}
    part = _write(tmp_path / "part.zarr", images[4:])
    assert find_marked(part, marked) == {2: 6}
    assert find_marked(_write(tmp_path / "x.zarr", _images(5)), marked) == {}
