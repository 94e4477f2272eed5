"""What other viewers find in a volume, read with zarr-python by the metadata alone."""

import numpy as np
import pytest
import yaozarrs
import zarr

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.data.store.volume_writer import create_volume

SHAPE = (3, 64, 96)
VOXEL_SIZE = (50.0, 8.0, 9.0)


def coordinates():
    """Images whose values tell where they are: y in slice 0, x in slice 1."""
    images = np.zeros(SHAPE, np.uint8)
    images[0], images[1] = np.indices(SHAPE[1:])
    return images


def bar(z):
    mask = np.zeros(SHAPE[1:], np.uint8)
    mask[16:40, 24:72] = 1
    return mask


@pytest.fixture(scope="module", params=[4, 1])
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("ome") / "cells.zarr"
    with create_volume(
        path, shape=SHAPE, dtype=np.uint8, voxel_size=VOXEL_SIZE, downsample=request.param
    ) as writer:
        for z, plane in enumerate(coordinates()):
            writer.write(z, plane)
        for name in ("nuclei", "nucleoli", "golgi"):
            with writer.create_label(name) as label:
                label.write_mask(1, bar(1))
        with writer.create_label("ignore", kind="ignore") as label:
            label.write_mask(2, bar(2))
    volume = open_volume(path)
    for name, level in (("nuclei_pred", TRAINING), ("golgi_pred", FULL)):
        half = [n // 2 for n in volume.plane_shape(level)]
        with create_label(path, name, levels=(level,), kind="prediction") as label:
            label.write(1, level, np.kron(np.eye(2, dtype=np.uint8), np.ones(half, np.uint8)))
    return path


def images(path):
    """The metadata "ome" of the image and of every label, by name."""
    labels = zarr.open_group(path / "labels", mode="r").attrs["ome"]["labels"]
    paths = {"image": path, **{name: path / "labels" / name for name in labels}}
    return {name: (p, zarr.open_group(p, mode="r").attrs["ome"]) for name, p in paths.items()}


def levels(path, attributes):
    """Every level: its array, and the nm of its pixels along each axis."""
    for dataset in attributes["multiscales"][0]["datasets"]:
        scale, *shift = dataset["coordinateTransformations"]
        assert scale["type"] == "scale"
        assert [t["type"] for t in shift] in ([], ["translation"])
        translation = shift[0]["translation"] if shift else [0, 0, 0]
        array = zarr.open_array(path / dataset["path"], mode="r")
        yield (
            array,
            [
                s * np.arange(n) + t
                for s, n, t in zip(scale["scale"], array.shape, translation, strict=True)
            ],
        )


def test_it_is_valid(path):
    yaozarrs.validate_zarr_store(str(path))


def test_axes_units_and_names(path):
    found = images(path)
    labels = ["golgi", "golgi_pred", "ignore", "nuclei", "nuclei_pred", "nucleoli"]
    assert list(found) == ["image", *labels]
    for name, (_, attributes) in found.items():
        (multiscale,) = attributes["multiscales"]
        assert multiscale["name"] == ("cells" if name == "image" else name)
        assert [axis["name"] for axis in multiscale["axes"]] == ["z", "y", "x"]
        assert {axis["unit"] for axis in multiscale["axes"]} == {"nanometer"}
        assert {axis["type"] for axis in multiscale["axes"]} == {"space"}
        assert attributes["version"] == "0.5"


def test_pixels_of_every_level_lie_where_their_values_say(path):
    for array, (z, y, x) in levels(*images(path)["image"]):
        np.testing.assert_array_equal(z, 50 * np.arange(3))
        # Means of two neighbours are rounded when they are stored.
        np.testing.assert_allclose(
            array[0] * 8.0, np.broadcast_to(y[:, None], array.shape[1:]), atol=4
        )
        np.testing.assert_allclose(array[1] * 9.0, np.broadcast_to(x, array.shape[1:]), atol=4.5)


def test_labels_of_every_level_lie_on_the_structure(path):
    for name in ("nuclei", "nucleoli", "golgi"):
        for array, (_, y, x) in levels(*images(path)[name]):
            inside = ((y >= 16 * 8) & (y < 40 * 8))[:, None] & ((x >= 24 * 9) & (x < 72 * 9))
            np.testing.assert_array_equal(array[1], inside)
            assert (array[0] == 255).all()


def test_predictions_of_one_scale_lie_in_the_image(path):
    """The diagonal halves of a prediction meet in the middle of the slice, at every level."""
    for name in ("nuclei_pred", "golgi_pred"):
        for array, (_, y, x) in levels(*images(path)[name]):
            upper, left = y < 32 * 8 - 4, x < 48 * 9 - 4.5
            np.testing.assert_array_equal(array[1], upper[:, None] == left)


def test_labels_have_as_many_levels_as_the_image(path):
    counts = {name: len(list(levels(*image))) for name, image in images(path).items()}
    assert set(counts.values()) == {1 if counts["image"] == 1 else 2}


def test_labels_name_their_image_values_and_colours(path):
    colours = {}
    for name, (folder, attributes) in images(path).items():
        if name == "image":
            continue
        entry = attributes["image-label"]
        assert (folder / entry["source"]["image"]).resolve() == path.resolve()
        text = {p["label-value"]: p["name"] for p in entry["properties"]}
        structure = name.removesuffix("_pred")
        assert text == {0: "background", 1: structure, 255: "unlabelled"}
        rgba = {c["label-value"]: c["rgba"] for c in entry["colors"]}
        assert rgba[0][3] == rgba[255][3] == 0
        assert rgba[1][3] > 0
        colours[name] = tuple(rgba[1])
        assert ome.label_colour({"ome": attributes}, "other") == colours[name]
    assert colours["nuclei"] == (0, 114, 178, 160)
    assert colours["nucleoli"] == (230, 159, 0, 160)
    assert len(set(colours.values())) == len(colours)


def test_a_label_without_a_colour_gets_that_of_its_name():
    assert ome.label_colour({}, "nuclei") == (0, 114, 178, 160)
    other = {"ome": {"image-label": {"colors": [{"label-value": 1}]}}}
    assert ome.label_colour(other, "nucleoli") == (230, 159, 0, 160)
