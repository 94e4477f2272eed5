"""Measures nuclei and nucleoli of a whole volume: a CSV line each, meshes and a picture."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.ranges import parse_range
from vemseg_jax.errors import InputError

_VOLUME = flags.DEFINE_string("volume", None, "OME-Zarr volume with predicted labels.")
_NUCLEI = flags.DEFINE_string("nuclei", "nuclei_pred", "Label image of nuclei.")
_NUCLEOLI = flags.DEFINE_string(
    "nucleoli", None, "Label image of nucleoli, such as nucleoli_pred; by default none."
)
_LEVEL = flags.DEFINE_enum(
    "level",
    None,
    ["training", "full"],
    "Scale that is measured; training scale where all labels have it.",
)
_Z_RANGE = flags.DEFINE_string(
    "z_range",
    "",
    "Slices START:STOP (STOP not included) to measure; by default all that have labels. Where"
    " objects reach the first or last one they count as cut.",
)
_MIN_NUCLEUS = flags.DEFINE_float("min_nucleus_um3", 1.0, "Smaller nuclei are left out, µm³.")
_MIN_NUCLEOLUS = flags.DEFINE_float(
    "min_nucleolus_um3", 0.01, "Smaller nucleoli are left out, µm³."
)
_OUTSIDE = flags.DEFINE_enum(
    "outside",
    "drop",
    ["drop", "flag"],
    "Nucleoli with less than half of their volume in one nucleus are dropped, or listed without a"
    " nucleus.",
)
_CONNECTIVITY = flags.DEFINE_enum(
    "connectivity",
    "26",
    ["6", "18", "26"],
    "Neighbours of a voxel that belong to the same object: 6 share a face, 18 an edge, 26 a"
    " corner.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Result folder; NAME-measurement beside the volume.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier measurement in --output.")
_MESHES = flags.DEFINE_enum(
    "meshes", None, ["ply", "obj"], "Also write a mesh of every object (µm, x y z)."
)
_MEMORY_GIB = flags.DEFINE_float(
    "memory_gib", 4.0, "Memory for slabs of the volume and shapes, beside what the program takes."
)


def main() -> None:
    """Measures the volume of the flags and prints the table."""
    from vemseg_jax.measure.measure import measure
    from vemseg_jax.measure.options import Options

    if not _VOLUME.value:
        raise InputError("--volume: missing; give an OME-Zarr volume, --volume=stack.zarr")
    if not _MEMORY_GIB.value > 0:
        raise InputError(f"--memory_gib={_MEMORY_GIB.value}: give a positive number, such as 2")
    options = Options(
        nuclei=_NUCLEI.value,
        nucleoli=_NUCLEOLI.value,
        level=_LEVEL.value,
        z_range=parse_range(_Z_RANGE.value),
        connectivity=int(_CONNECTIVITY.value),
        min_nucleus_um3=_MIN_NUCLEUS.value,
        min_nucleolus_um3=_MIN_NUCLEOLUS.value,
        outside=_OUTSIDE.value,
        meshes=_MESHES.value,
        memory_bytes=int(_MEMORY_GIB.value * 2**30),
    )
    result = measure(_VOLUME.value, options, output=_OUTPUT.value, overwrite=_OVERWRITE.value)
    print(result.text)
    print(f"written: {result.output}")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
