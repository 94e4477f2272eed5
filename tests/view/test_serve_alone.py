"""Servers of their own, for what the shared one cannot show."""

import logging
import shutil
import socket
import subprocess
import sys
import urllib.error

import numpy as np
import pytest

from tests.view import volumes
from tests.view.test_serve import Page, get
from vemseg_jax.errors import InputError
from vemseg_jax.view.layers import contrast, layers_of
from vemseg_jax.view.serve import serving

pytest.importorskip("neuroglancer")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return volumes.write(tmp_path_factory.mktemp("view") / "cells.zarr")


def test_it_ends_with_the_block_and_can_start_again(path):
    for z in (0, 6):
        with serving(path, z=z, layout="xy", layers=["ignore", "image"]) as served:
            page = Page(served.url)
            assert page.state["position"][2] == z + 0.5
            assert page.state["layout"] == "xy"
            assert list(page.layers) == ["image", "ignore"]
            assert page.layers["ignore"].get("visible", True)
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(page.url)


def test_a_volume_of_one_level_and_16_bit(tmp_path):
    path = volumes.write(tmp_path / "v.zarr", downsample=1, dtype=np.uint16)
    with serving(path) as served:
        page = Page(served.url)
        images = volumes.images(np.uint16)
        chunk = page.chunk("image", (0, 0, 0), (7, 75, 104), (1, 2, 2))
        blocks = images[:, :150, :208].reshape(7, 75, 2, 104, 2).astype(float)
        np.testing.assert_array_equal(chunk, np.rint(blocks.mean((2, 4))))
        assert page.info("nuclei_pred")["shape"] == list(volumes.SHAPE)
        control = page.layers["image"]["shaderControls"]["normalized"]
        assert control["window"] == [0, 65535]
        assert 255 < control["range"][1] <= 65535


def test_coarse_pictures_read_the_training_level_only(path, tmp_path):
    copy = tmp_path / "v.zarr"
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "0" / "c")
    with serving(copy) as served:
        page = Page(served.url)
        assert not page.chunk("image", (0, 0, 0), (7, 150, 209), (1, 1, 1)).any()
        assert page.chunk("image", (0, 0, 0), (7, 37, 52), (1, 4, 4)).all()
        assert page.chunk("image", (0, 70, 0), (4, 71, 52), (2, 1, 4)).all()


def test_unreadable_pixels_are_told(path, tmp_path, caplog):
    copy = tmp_path / "v.zarr"
    shutil.copytree(path, copy)
    for file in (copy / "0" / "c" / "4").rglob("0"):
        if file.is_file():
            file.write_bytes(b"damage" * 9)
    with serving(copy) as served, caplog.at_level(logging.WARNING, logger="absl"):
        page = Page(served.url)
        assert page.chunk("image", (3, 0, 0), (4, 9, 9), (1, 1, 1)).any()
        with pytest.raises(urllib.error.HTTPError, match="400") as error:
            page.chunk("image", (4, 0, 0), (5, 9, 9), (1, 1, 1))
        error.value.close()
    assert "image: " in caplog.text


def test_a_port_that_is_taken(path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port={port}.*--port=0"), serving(path, port=port):
            pass
    with serving(path, port=port) as served:
        assert served.url.startswith(f"http://127.0.0.1:{port}/v/")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["cells"]}, "--layers: found 'cells'.*image, nuclei_prob, nuclei, "),
        ({"layers": ["image", "image"]}, "given twice"),
        ({"z": 7}, "--z=7.*slices 0 to 6"),
        ({"z": -1}, "--z=-1"),
        ({"layout": "cube"}, "--layout=cube.*4panel"),
    ],
)
def test_bad_options(path, options, message):
    with pytest.raises(InputError, match=message), serving(path, **options):
        pass


def test_without_the_package(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(InputError, match=r"pip install 'neuroglancer"), serving(path):
        pass


def test_nothing_else_imports_it():
    code = (
        "import sys, vemseg_jax, vemseg_jax.cli.view, vemseg_jax.view.serve;"
        "sys.exit('neuroglancer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_volume_without_labels_or_contrast(tmp_path):
    from vemseg_jax.data.store.volume import open_volume
    from vemseg_jax.data.store.volume_writer import create_volume

    with create_volume(
        tmp_path / "v.zarr", shape=(4, 20, 20), dtype=np.uint8, voxel_size=(5, 5, 5), downsample=1
    ) as writer:
        for z in range(4):
            writer.write(z, np.full((20, 20), 9, np.uint8))
    volume = open_volume(tmp_path / "v.zarr")
    assert contrast(volume) == (0, 255)
    assert [layer.name for layer in layers_of(volume)] == ["image"]
    with serving(volume.path) as served:
        assert served.z == 2


def test_the_slider_of_values_of_12_bit_ends_with_them(tmp_path):
    from vemseg_jax.view.state import value_window

    assert value_window(np.dtype(np.uint16), 3100.0) == [0.0, 4095.0]
    assert value_window(np.dtype(np.uint16), 255.0) == [0.0, 255.0]
    assert value_window(np.dtype(np.uint16), 65535.0) == [0.0, 65535.0]
    assert value_window(np.dtype(np.uint8), 200.0) == [0.0, 255.0]
