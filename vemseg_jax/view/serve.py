"""Serving a volume to a browser on this machine."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vemseg_jax.commands import install
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.view.layers import LayerContent, layers_of, start_slice

LOOPBACK = "127.0.0.1"
LAYOUTS = ("4panel", "xy", "xz", "yz")


@dataclass(frozen=True)
class Served:
    """A volume that is being served.

    Attributes:
      url: the page.
      layers: lowest first.
      z: the slice shown first.
      viewer: the `neuroglancer.Viewer`.
      text: what it is, in words.
    """

    url: str
    layers: list[LayerContent]
    z: int
    viewer: Any
    text: str


def _import_neuroglancer() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise InputError(
            f"the viewer needs the package neuroglancer ({error}); run: {install('view')}"
        ) from error
    return neuroglancer


def _start(neuroglancer: Any, port: int) -> Any:
    if neuroglancer.server.is_server_running():
        raise InputError("one volume at a time; end the viewer that runs in this process first")
    try:
        # Asked first: the server leaves threads and sockets behind when its port is taken.
        with socket.create_server((LOOPBACK, port)):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--port={port}: {error}; choose another, or --port=0 for a free one"
        ) from error
    # The page that the package brings along, whatever this process was told before.
    neuroglancer.set_static_content_source()
    neuroglancer.set_server_bind_address(LOOPBACK, port)
    return neuroglancer.Viewer(allow_credentials=False)


def _text(path: str | Path, layers: Sequence[LayerContent], shape: Any, size: Any, z: int) -> str:
    lines = [
        f"{path}: {' x '.join(map(str, shape))} voxels of {' x '.join(f'{s:g}' for s in size)} nm"
        " (zyx)"
    ]
    for shown, word in ((True, "shown"), (False, "in the list, hidden")):
        names = [
            layer.name if layer.name == layer.kind else f"{layer.name} ({layer.kind})"
            for layer in layers
            if layer.visible is shown
        ]
        if names:
            lines.append(f"{word}: {', '.join(names)}")
    lines.append(f"opens at slice {z}")
    return "\n".join(lines)


@contextmanager
def serving(
    path: str | Path,
    *,
    layers: Sequence[str] | None = None,
    z: int | None = None,
    layout: str = "4panel",
    port: int = 0,
) -> Iterator[Served]:
    """Serves a volume while the block runs, to this machine only.

    The page comes out of the installed neuroglancer package and the pixels from disk as the page
    asks for them; nothing is fetched from elsewhere.

    Args:
      path: the volume.
      layers: names of layers, "image" among them; by default all.
      z: slice shown first; by default the labelled one nearest to the middle.
      layout: panels: "4panel", "xy", "xz" or "yz".
      port: of the loopback interface; 0 for any free one.

    Raises:
      InputError: no such volume, layer, slice or layout, the port is taken, or the package
        neuroglancer is not installed.
    """
    if layout not in LAYOUTS:
        raise InputError(f"--layout={layout}: the layouts are {', '.join(LAYOUTS)}")
    volume = open_volume(path)
    contents = layers_of(volume, layers)
    first = start_slice(volume, contents, z)
    neuroglancer = _import_neuroglancer()
    from vemseg_jax.view.state import viewer_state

    viewer = _start(neuroglancer, port)
    try:
        viewer.set_state(viewer_state(volume, contents, z=first, layout=layout))
        text = _text(path, contents, volume.shape, volume.voxel_size, first)
        yield Served(viewer.get_viewer_url(), contents, first, viewer, text)
    finally:
        neuroglancer.stop()


def serve(path: str | Path, *, seconds: float | None = None, **options: Any) -> None:
    """Serves a volume, prints the link, and ends after `seconds` or on Ctrl-C.

    Args:
      path: the volume.
      seconds: None to go on until Ctrl-C.
      **options: of `serving`.
    """
    with serving(path, **options) as served:
        print(served.text)
        print("the page is served by this machine, to this machine only; no network is needed")
        print(served.url)
        print("Ctrl-C ends it" if seconds is None else f"ends after {seconds:g} s", flush=True)
        try:
            _wait(seconds)
        except KeyboardInterrupt:
            print()
    print("ended")


def _wait(seconds: float | None) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        time.sleep(0.5 if end is None else max(0.0, min(0.5, end - time.monotonic())))
