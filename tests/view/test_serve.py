import io
import json
import re
import socket
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest

from tests.view import volumes
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.view.serve import serving

pytest.importorskip("neuroglancer")


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


def state_of(url):
    """The state that the page gets when it connects."""
    events = url.replace("/v/", "/events/").rstrip("/") + "?c=test&gc=none&gs=none"
    with urllib.request.urlopen(events, timeout=20) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                message = json.loads(line[6:])
                if message["k"] == "s":
                    return message["s"]
    raise AssertionError("no state")


def layers(state):
    return {layer["name"]: layer for layer in state["layers"]}


class Page:
    """What the page in the browser asks for."""

    def __init__(self, url):
        self.url = url
        self.root = re.match(r"http://127\.0\.0\.1:\d+", url).group()
        self.state = state_of(url)
        self.layers = layers(self.state)

    def key(self, layer):
        (source,) = self.layers[layer]["source"]
        return source["url"].removeprefix("python://volume/")

    def info(self, layer):
        return json.loads(get(f"{self.root}/neuroglancer/info/{self.key(layer)}"))

    def chunk(self, layer, start, stop, factors):
        box = "/".join(",".join(map(str, corner)) for corner in (factors, start, stop))
        data = get(f"{self.root}/neuroglancer/npz/{self.key(layer)}/{box}")
        return np.load(io.BytesIO(zlib.decompress(data)))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return volumes.write(tmp_path_factory.mktemp("view") / "cells.zarr")


@pytest.fixture(scope="module")
def page(path):
    with serving(path) as served:
        yield Page(served.url)


def test_the_page_is_served_from_the_package(page):
    html = get(page.url).decode()
    assert "http" not in html
    scripts = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert any(name.endswith(".js") for name in scripts)
    for name in scripts:
        assert len(get(page.url + name)) > 100


def test_layers_have_names_colours_and_order(page):
    assert list(page.layers) == [
        "image",
        "nuclei_prob",
        "nuclei",
        "nuclei_pred",
        "trial",
        "ignore",
    ]
    shown = [name for name, layer in page.layers.items() if layer.get("visible", True)]
    assert shown == ["image", "nuclei", "nuclei_pred"]
    labels = [layer for layer in page.layers.values() if layer["type"] == "segmentation"]
    assert len(labels) == 4
    assert all(layer["segments"] == ["1"] for layer in labels)
    colours = [layer["segmentColors"]["1"] for layer in labels]
    assert colours[0] == "#0072b2"
    assert len(set(colours)) == 4
    assert page.layers["image"]["type"] == page.layers["nuclei_prob"]["type"] == "image"
    assert "colormap" in page.layers["nuclei_prob"]["shader"]


def test_position_contrast_and_scale_bar(page, path):
    state = page.state
    assert state["title"] == "cells.zarr"
    scales = {name: scale for name, (scale, unit) in state["dimensions"].items()}
    assert scales == pytest.approx({"x": 9e-9, "y": 8e-9, "z": 50e-9})
    # Slices 1 and 5 are annotated and 3, the middle, predicted.
    assert state["position"] == [104.5, 75, 3.5]
    assert state["showScaleBar"] is True
    assert state["layout"] == "4panel"
    low, high = page.layers["image"]["shaderControls"]["normalized"]["range"]
    grey = volumes.images().astype(float)
    assert low == max(0, np.floor(grey.mean() - 3 * grey.std()))
    assert high == pytest.approx(grey.mean() + 3 * grey.std(), abs=1)


def test_voxel_sizes_and_shapes(page, path):
    volume = open_volume(path)
    training = list(volume.image(TRAINING).shape)
    for name, shape, size, kind in (
        ("image", volumes.SHAPE, (50, 8, 9), "image"),
        ("nuclei", volumes.SHAPE, (50, 8, 9), "segmentation"),
        ("nuclei_pred", training, (50, 32, 36), "segmentation"),
        ("nuclei_prob", volumes.SHAPE, (50, 8, 9), "image"),
    ):
        info = page.info(name)
        assert (info["shape"], info["volumeType"]) == (list(shape), kind)
        assert list(info["coordinateSpace"]) == ["z", "y", "x"]
        found = [scale for scale, unit in info["coordinateSpace"].values()]
        assert found == pytest.approx([nm * 1e-9 for nm in size])
        assert info["dataType"] == "uint8"
        assert [int(n) for n in info["voxelOffset"]] == [0, 0, 0]


@pytest.mark.parametrize("name", ["image", "nuclei"])
def test_chunks_are_the_pixels_of_both_levels(page, path, name):
    volume = open_volume(path)
    for level, factor in ((FULL, 1), (TRAINING, 4)):
        array = volume.image(level) if name == "image" else volume.label(name, level)
        stop = (6, 30, 40) if level == TRAINING else (6, 120, 160)
        expected = array[1:6, 3 : stop[1], 5 : stop[2]].read().result()
        chunk = page.chunk(name, (1, 3, 5), stop, (1, factor, factor))
        np.testing.assert_array_equal(chunk, expected)
        assert name == "image" or set(np.unique(chunk)) == {0, 1, 255}


def test_chunks_of_other_layers(page, path):
    volume = open_volume(path)
    chunk = page.chunk("nuclei_pred", (2, 0, 0), (4, 37, 52), (1, 1, 1))
    expected = volume.label("nuclei_pred", TRAINING)[2:4].read().result()
    np.testing.assert_array_equal(chunk, expected)
    chunk = page.chunk("nuclei_prob", (0, 0, 0), (7, 150, 209), (1, 1, 1))
    np.testing.assert_array_equal(chunk, volumes.probabilities())


@pytest.mark.parametrize(
    "request_path",
    [
        "npz/KEY/1,1,1/0,0,0/8,1,1",
        "npz/KEY/1,3,3/0,0,0/1,1,1",
        "npz/KEY/1,64,64/0,0,0/1,1,1",
        "npz/KEY/1,1/0,0/1,1",
        "raw/KEY/1,1,1/0,0,0/1,1,1",
        "npz/nothing/1,1,1/0,0,0/1,1,1",
        "mesh/KEY/1",
    ],
)
def test_senseless_requests_are_refused(page, request_path):
    request_path = request_path.replace("KEY", page.key("nuclei"))
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"{page.root}/neuroglancer/{request_path}")
    with error.value:
        assert 400 <= error.value.code < 500


def test_nobody_else_can_connect_or_guess_the_link(page):
    port = int(page.root.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    for url in (page.root, f"{page.root}/v/guess/", f"{page.root}/events/guess?c=1&gc=1&gs=1"):
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(url)
        error.value.close()
    request = urllib.request.Request(
        page.url.replace("/v/", "/credentials/").rstrip("/"), data=b"{}"
    )
    with pytest.raises(urllib.error.HTTPError, match="403") as error:
        urllib.request.urlopen(request, timeout=20)
    error.value.close()


def test_one_viewer_at_a_time(page, path):
    with pytest.raises(InputError, match="one volume at a time"), serving(path):
        pass
    assert get(page.url)
