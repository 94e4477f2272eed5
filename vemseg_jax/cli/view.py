"""`vemseg-view VOLUME`: look at a volume and its labels in a browser on this machine."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.errors import InputError

_VOLUME = flags.DEFINE_string("volume", None, "Converted volume (OME-Zarr); or as an argument.")
_LAYERS = flags.DEFINE_list(
    "layers",
    None,
    "Layers to show, 'image' or names of labels; by default all are listed, and shown are the"
    " image, annotations, and predictions ending in _pred. Example: --layers=image,nuclei_pred",
)
_Z = flags.DEFINE_integer(
    "z", None, "Slice shown first; by default the labelled one nearest to the middle."
)
_LAYOUT = flags.DEFINE_enum(
    "layout", "4panel", ["4panel", "xy", "xz", "yz"], "Panels: three sections and 3D, or one."
)
_PORT = flags.DEFINE_integer("port", 0, "Port on 127.0.0.1; 0 for any free one.", 0, 65535)
_SECONDS = flags.DEFINE_float(
    "seconds", None, "End after so many seconds, for scripts; by default on Ctrl-C.", 0
)


def _volume(argument: str | None) -> str:
    if (argument is None) == (_VOLUME.value is None):
        raise InputError("give one volume: vemseg-view my.zarr, or --volume=my.zarr")
    return str(_VOLUME.value if argument is None else argument)


def main(volume: str | None = None) -> None:
    """Serves the volume and prints the link."""
    from vemseg_jax.view.serve import serve

    serve(
        _volume(volume),
        seconds=_SECONDS.value,
        layers=_LAYERS.value,
        z=_Z.value,
        layout=_LAYOUT.value,
        port=_PORT.value,
    )


def entry() -> None:
    """The console script."""
    app.run(main, positional=1)


if __name__ == "__main__":
    entry()
