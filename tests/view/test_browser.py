"""What a browser draws, pixel for pixel; needs Chromium, say from the package `chromium`."""

import contextlib
import functools
import http.server
import io
import re
import shutil
import subprocess
import threading

import matplotlib.image
import numpy as np
import pytest

from tests.view import volumes
from vemseg_jax.data.store.volume import TRAINING, open_volume
from vemseg_jax.view.serve import serving

pytest.importorskip("neuroglancer")

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--enable-logging=stderr",
    "--remote-debugging-port=0",
    # Nothing but this machine has an address: whatever is fetched from elsewhere fails.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
WIDTH, HEIGHT = 900, 700
SECONDS = 120


@contextlib.contextmanager
def browser(url, folder):
    """Chromium with the page open; what it logs goes to a file in `folder`."""
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}", url], stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def screenshot(viewer):
    """`[h, w, 3]`, 0 to 255, once everything in view is loaded and drawn."""
    with viewer.config_state.txn() as state:
        state.show_ui_controls = False
        state.show_panel_borders = False
        state.viewer_size = [WIDTH, HEIGHT]
    for _ in range(5):
        done, answers = threading.Event(), []

        def take(answer, answers=answers, done=done):
            answers.append(answer)
            done.set()

        viewer.async_screenshot(take)
        assert done.wait(SECONDS), "the page never finished drawing"
        png = answers[0].screenshot.image
        picture = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3] * 255
        # The first may be taken before the size is set.
        if picture.shape[:2] == (HEIGHT, WIDTH):
            return picture
    raise AssertionError(f"screenshots of {picture.shape}")


class Files(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, as any file server that neuroglancer reads from."""

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        try:
            with open(self.translate_path(self.path), "rb") as file:
                data = file.read()
        except OSError:
            return self.send_error(404)
        start, stop = 0, len(data)
        if wanted and wanted[1]:
            start, stop = int(wanted[1]), min(int(wanted[2] or stop) + 1, stop)
        elif wanted:
            start = max(0, stop - int(wanted[2]))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def file_server(folder):
    handler = functools.partial(Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def at(picture, y, x):
    """Colours on screen at the middles of full-resolution pixels; 8 nm are 3 screen pixels."""
    h, w = volumes.SHAPE[1:]
    rows = HEIGHT / 2 + (y + 0.5 - h / 2) * 3
    columns = WIDTH / 2 + (x + 0.5 - w / 2) * 3 * 9 / 8
    return picture[rows.astype(int), columns.astype(int)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return volumes.write(tmp_path_factory.mktemp("browser") / "cells.zarr")


def test_image_and_labels_are_drawn_where_they_are(path, tmp_path):
    y, x = (a.ravel() for a in np.mgrid[5:145:7, 5:200:7])
    volume = open_volume(path)
    with serving(path, layout="xy") as served, browser(served.url, tmp_path):
        with served.viewer.txn() as state:
            state.cross_section_scale = 1 / 3
            state.position = [209 / 2, 75, 1.5]
            state.show_scale_bar = False
            state.show_default_annotations = False
        annotated = at(screenshot(served.viewer), y, x)
        control = state.layers["image"].layer.shader_controls["normalized"]
        colours = [
            np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)])
            for c in (state.layers[n].layer.segment_colors[1] for n in ("nuclei", "nuclei_pred"))
        ]
        with served.viewer.txn() as state:
            state.position = [209 / 2, 75, 3.5]
        predicted = at(screenshot(served.viewer), y, x)
    low, high = control.range
    masks = (
        volumes.nuclei(1)[y, x],
        volume.label("nuclei_pred", TRAINING)[3]
        .read()
        .result()[np.minimum(y // 4, 36), np.minimum(x // 4, 51)]
        == 1,
    )
    for z, drawn, mask, colour in zip((1, 3), (annotated, predicted), masks, colours, strict=True):
        grey = ((volumes.images()[z, y, x] - low) / (high - low)).clip(0, 1) * 255
        expected = np.repeat(grey[:, None], 3, 1)
        assert 0.1 < mask.mean() < 0.9
        expected[mask] = 0.6 * expected[mask] + 0.4 * colour
        # A label of the training scale ends where its pixels do.
        np.testing.assert_allclose(drawn, expected, atol=3)
    log = (tmp_path / "log.txt").read_text()
    assert "connected" in log
    assert ":ERROR:CONSOLE" not in log


def test_four_panels(path, tmp_path):
    with serving(path) as served, browser(served.url, tmp_path):
        picture = screenshot(served.viewer)
    middle = [
        picture[row - 40 : row + 40, column - 40 : column + 40]
        for row in (HEIGHT // 4, 3 * HEIGHT // 4)
        for column in (WIDTH // 4, 3 * WIDTH // 4)
    ]
    assert all(len(np.unique(part.round())) > 20 for part in middle)


def test_neuroglancer_reads_the_same_from_the_files(path, tmp_path):
    """The volume as OME-Zarr, by its own metadata, is drawn as `vemseg-view` draws it."""
    layers = ["image", "nuclei_pred"]
    with (
        file_server(path.parent) as files,
        serving(path, layout="xy", layers=layers) as served,
        browser(served.url, tmp_path),
    ):
        with served.viewer.txn() as state:
            state.cross_section_scale = 1 / 3
            state.position = [209 / 2, 75, 3.5]
            state.show_scale_bar = False
            state.show_default_annotations = False
        ours = screenshot(served.viewer)
        with served.viewer.txn() as state:
            # OME-Zarr has the origin at the middle of the first voxel, we at its corner.
            state.position = [209 / 2 - 0.5, 74.5, 3]
            for name, folder in (("image", ""), ("nuclei_pred", "labels/nuclei_pred/")):
                source = f"{files}/{path.name}/{folder}|zarr3:"
                state.layers[name].source = source
        theirs = screenshot(served.viewer)
    # The volume without its rim, where pixels of the screen lie half outside.
    half = [int(size * 3 / 2) - 2 for size in (150, 209 * 9 / 8)]
    rows, columns = (
        slice(n // 2 - side, n // 2 + side) for n, side in zip((HEIGHT, WIDTH), half, strict=True)
    )
    ours, theirs = ours[rows, columns], theirs[rows, columns]
    assert ours.std() > 20
    assert (np.abs(ours - theirs).max(-1) > 3).mean() < 0.02
