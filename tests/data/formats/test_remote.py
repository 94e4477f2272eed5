"""Volumes behind an address, served on this machine; no network."""

import http.server
import os
import threading
import time

import numpy as np
import pytest
import zarr

from tests.data import volumes
from tests.data.volumes import STACK
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.stores import location
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*arguments):
        return _Quiet(*arguments, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("write", "prefix"),
    [
        (volumes.ome_zarr_04, ""),
        (volumes.ome_zarr_05, "zarr://"),
        (volumes.n5, "n5://"),
        (volumes.precomputed, "precomputed://"),
    ],
)
def test_chunked_formats_are_read_from_afar(served, tmp_path, write, prefix):
    folder, address = served
    write(folder / "in")
    options = ConvertOptions(downsample=1)
    convert(location(f"{prefix}{address}/in/"), tmp_path / "v.zarr", options)
    volume = open_volume(tmp_path / "v.zarr")
    np.testing.assert_array_equal(volume.image(FULL).read().result(), STACK)
    assert volume.source == f"{address}/in"


def test_axes_and_labels_of_plain_arrays_from_afar(served, tmp_path):
    folder, address = served
    # Not sharded: this simple server cannot serve parts of files.
    zarr.create_array(folder / "in", data=STACK, chunks=(2, 16, 16), zarr_format=3)
    volumes.zarr_2(folder / "labels", (STACK > 99).astype(np.uint8))
    options = ConvertOptions(
        downsample=1,
        axes="zyx",
        voxel_size=volumes.VOXEL_SIZE,
        labels=[("nuclei", f"{address}/labels")],
        labelled_slices={"nuclei": (1, 3)},
    )
    convert(f"{address}/in", tmp_path / "v.zarr", options)
    assert open_volume(tmp_path / "v.zarr").labelled_slices("nuclei") == (1, 3)


def test_what_cannot_be_read_is_named_with_the_reason(served):
    folder, address = served
    with pytest.raises(InputError, match=rf"{address}/nothing: no OME-Zarr, Zarr, N5"):
        open_source(f"{address}/nothing")
    with pytest.raises(InputError, match=r"stack\.tif: single files cannot be read from afar"):
        open_source(f"{address}/stack.tif")
    chunk = volumes.ome_zarr_04(folder / "in") / "0" / "1.0.0"
    if not chunk.exists():
        chunk = folder / "in" / "0" / "1" / "0" / "0"
    os.truncate(chunk, 20)
    source = open_source(f"{address}/in")
    source.read(0)
    with pytest.raises(InputError, match=rf"{address}/in, slice 2: truncated or damaged"):
        source.read(2)


def test_a_server_that_does_not_answer_is_given_up(served):
    _, address = served
    closed = address.rsplit(":", 1)[0] + ":9"
    start = time.monotonic()
    with pytest.raises(InputError, match=rf"{closed}/in: cannot be read .*connect"):
        open_source(f"{closed}/in")
    assert time.monotonic() - start < 30


def test_addresses():
    assert location("gs://bucket/a/") == "gs://bucket/a"
    assert location("precomputed://gs://bucket/a") == "gs://bucket/a"
    assert str(location("file:///tmp/a")) == "/tmp/a"
    with pytest.raises(InputError, match=r"ftp://host/a: not an address that can be read"):
        location("ftp://host/a")
