"""Makes a procedural electron microscopy stack with ground truth, as TIFF files."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.data.phantom.stack import PRESETS, Phantom, PhantomConfig, write_tiff_stack
from vemseg_jax.errors import InputError

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to make: images/, truth/nuclei/ and truth/nucleoli/."
)
_PRESET = flags.DEFINE_string("preset", "biopsy1", f"One of: {', '.join(PRESETS)}.")
_SHAPE = flags.DEFINE_list("shape", ["48", "768", "1024"], "Voxels, as z,y,x.")
_VOXEL_SIZE = flags.DEFINE_list("voxel_size", ["40", "16", "16"], "Nanometres, as z,y,x.")
_SEED = flags.DEFINE_integer("seed", 0, "Another seed makes another tissue.")
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace an output that exists.")


def _numbers(flag: str, texts: list[str], kind: type) -> tuple:
    try:
        values = tuple(kind(text) for text in texts)
    except ValueError:
        values = ()
    if len(values) != 3:
        found = ",".join(texts)
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"--{flag}={found}: need three {what} as z,y,x")
    return values


def main() -> None:
    """Writes the stack that the flags describe."""
    if not _OUTPUT.value:
        raise InputError("--output is missing: name the folder to make")
    config = PhantomConfig(
        preset=_PRESET.value,
        shape=_numbers("shape", _SHAPE.value, int),
        voxel_size=_numbers("voxel_size", _VOXEL_SIZE.value, float),
        seed=_SEED.value,
    )
    folder = write_tiff_stack(
        Phantom(config), _OUTPUT.value, overwrite=_OVERWRITE.value, progress=True
    )
    z, y, x = config.shape
    print(f"{folder}: {z} slices of {y} x {x}, images/ and truth/ (0 background, 1 structure)")


def entry() -> None:
    """Entry point of `vemseg-phantom`."""
    app.run(main)


if __name__ == "__main__":
    entry()
