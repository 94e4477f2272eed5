"""`vemseg-convert`: a stack of slices and its labels to an OME-Zarr volume."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.by_structure import by_structure, name_and_rest, parse_offsets
from vemseg_jax.cli.flag_paths import given_path
from vemseg_jax.cli.structures import labelled_slices, one_of, values_above_0, whole_numbers
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder of TIFF or PNG slices, TIFF stack (or one file of a set of OME-TIFF files), OME-Zarr,"
    " Zarr, N5, precomputed, MRC, or HDF5 with its dataset (stack.h5/volumes/raw);"
    " Zarr, N5 and precomputed also at gs://, s3://, https://.",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The OME-Zarr volume to make, such as vol.zarr.", required=True
)
_VOXEL_SIZE = flags.DEFINE_list(
    "voxel_size",
    None,
    "z,y,x in nm, such as 50,10,10; needed where the source records none, or in no unit of length.",
)
_LABELS = flags.DEFINE_multi_string(
    "labels",
    [],
    "NAME=PATH, once per structure: a folder of TIFF or PNG masks whose trailing numbers are those"
    " of their slices, or a volume of any format with a mask for every slice.",
)
_LABELS_CSV = flags.DEFINE_string(
    "labels_csv",
    None,
    "Explicit pairing: CSV (commas, semicolons or tabs) with the columns structure,image,label: a"
    " name, the file name of a slice or its number, and a TIFF or PNG file relative to the CSV.",
)
_LABEL_VALUES = flags.DEFINE_multi_string(
    "label_values",
    [],
    "Values of label files that are not binary: nuclei=1+2,nucleoli=2, or nuclei=any for every"
    " value above 0. What other structures of the same files are called is background.",
)
_BACKGROUND_VALUES = flags.DEFINE_multi_string(
    "background_values",
    [],
    "NAME=3+4: values that are background as 0 is; nuclei=others: all that no flag names. Without a"
    " NAME for all structures.",
)
_UNLABELLED_VALUE = flags.DEFINE_multi_string(
    "unlabelled_value",
    [],
    "NAME=255 (or 255+-1, or without a NAME for all structures): pixels of this value were not"
    " labelled, and are left out of training and scores; slices of nothing else are unlabelled.",
)
_LABELLED_SLICES = flags.DEFINE_multi_string(
    "labelled_slices",
    [],
    "NAME=0,25,50: the annotated slices of a label volume, counted from 0 whatever --first_slice"
    " says; the others count as unlabelled.",
)
_UNLABELLED_SLICES = flags.DEFINE_multi_string(
    "unlabelled_slices",
    [],
    "NAME=empty: slices that show nothing of the structure were not labelled; NAME=none: they were,"
    " and are background. Without a NAME for all structures. By default slices are background where"
    " the structure ends as structures do, and refused where it looks as if nobody painted them.",
)
_FIRST_SLICE = flags.DEFINE_enum(
    "first_slice",
    None,
    ["0", "1"],
    "The number of the first slice in names of label files and in --labels_csv, where images are"
    " one file or have no numbers: 1 as Fiji and ImageJ count. By default the numbers tell (0 is"
    " among them, or that of the last slice), or are refused.",
)
_IGNORE = flags.DEFINE_string(
    "ignore", None, "Mask of pixels to leave out of loss and metric, of any format."
)
_IGNORE_DILATION = flags.DEFINE_integer(
    "ignore_dilation", 0, "Grows the ignore mask by a disk of this radius in pixels.", 0
)
_DOWNSAMPLE = flags.DEFINE_enum(
    "downsample", "4", ["4", "1"], "Training scale: 4x smaller, or the resolution of the source."
)
_AXES = flags.DEFINE_string(
    "axes",
    None,
    "Which dimension is which, in the order in which the format lists them, such as zyx, where it"
    " is not recorded, such as xyz of an HDF5 file from MATLAB; zyx also takes the pages of a TIFF"
    " stack as slices whatever it calls them.",
)
_LABELS_AXES = flags.DEFINE_multi_string(
    "labels_axes",
    [],
    "As --axes, of labels that do not record them: xyz for all of them, or NAME=xyz for one"
    " structure (ignore=xyz for the ignore mask). Without it, --axes counts for such labels where"
    " only one order fits the shape of the images.",
)
_LABELS_OFFSET = flags.DEFINE_multi_string(
    "labels_offset",
    [],
    "Where the first voxel of a label stack lies in the images, z,y,x in voxels: 8,64,64 for all"
    " stacks, or NAME=8,64,64 for one (ignore=8,64,64 for the ignore mask). Counts whatever the"
    " files record; 0,0,0 lays it on the first voxel. What it does not cover is unlabelled.",
)
_TRUST_FLAG = flags.DEFINE_bool(
    "trust_flag",
    False,
    "Where files record another voxel size or other axes than --voxel_size, --axes and"
    " --labels_axes say, or labels another voxel size than the images, take what the flags say (of"
    " labels, the images' voxel size), with a warning, as in --voxel_size=50,10,10 --trust_flag."
    " Without it, such files are refused.",
)
_VALUE_RANGE = flags.DEFINE_list(
    "value_range",
    None,
    "LOW,HIGH: what becomes black and white of signed integers and floats, mapped to 8 bit (from"
    " int8) or 16 bit (from all others).",
)
_MISSING_CHUNKS = flags.DEFINE_enum(
    "missing_chunks",
    "refuse",
    ["refuse", "fill"],
    "What to do where chunks or files inside the images, or parts of a label volume, were lost:"
    " refuse and name them, or fill them with the format's fill value (black, background). Empty"
    " chunks that a writer left out are no loss.",
)
_MRC_BYTES = flags.DEFINE_enum(
    "mrc_bytes",
    None,
    ["signed", "unsigned", "imod"],
    "What bytes (mode 0) of MRC files mean where the file leaves doubt: signed (-128 to 127),"
    " unsigned (0 to 255), imod (0 to 255, stored as -128 to 127). Goes for images and labels.",
)
_FLIP_Y = flags.DEFINE_list(
    "flip_y",
    [],
    "Turns over the rows of these: images, labels, ignore, or names of structures, such as"
    " --flip_y=labels. For labels drawn on what IMOD shows of an MRC file, or on slices from"
    " mrc2tif: IMOD shows the first row at the bottom. none says that rows are alike.",
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace an earlier volume once the new one is complete."
)


def _voxel_size(texts: list[str] | None) -> tuple[float, float, float] | None:
    if texts is None:
        return None
    try:
        z, y, x = (float(text) for text in texts)
    except ValueError:
        raise InputError(
            f"--voxel_size={','.join(texts)}: must be three lengths in nm, z,y,x, such as 50,10,10"
        ) from None
    return z, y, x


def _value_range(texts: list[str] | None) -> tuple[float, float] | None:
    if texts is None:
        return None
    try:
        low, high = (float(text) for text in texts)
    except ValueError:
        raise InputError(
            f"--value_range={','.join(texts)}: must be two numbers, such as --value_range=-500,2000"
        ) from None
    return low, high


def main() -> None:
    """Converts and prints where the volume is."""
    from vemseg_jax.data.convert.stack import ConvertOptions, convert
    from vemseg_jax.data.formats.stores import location

    pairs = [name_and_rest(text, flag="labels", example="nuclei=masks/") for text in _LABELS.value]
    output = convert(
        location(_IMAGES.value),
        local_path(_OUTPUT.value, flag="--output"),
        ConvertOptions(
            voxel_size=_voxel_size(_VOXEL_SIZE.value),
            labels=[(name, location(path)) for name, path in pairs],
            labels_csv=given_path(_LABELS_CSV),
            label_values=values_above_0(_LABEL_VALUES.value),
            background_values=whole_numbers(
                _BACKGROUND_VALUES.value, flag="background_values", word="others", example="3+4"
            ),
            labelled_slices=labelled_slices(_LABELLED_SLICES.value),
            unlabelled_slices=one_of(
                _UNLABELLED_SLICES.value, ("empty", "none"), flag="unlabelled_slices"
            ),
            unlabelled_values=whole_numbers(
                _UNLABELLED_VALUE.value, flag="unlabelled_value", example="255"
            ),
            first_slice=int(_FIRST_SLICE.value) if _FIRST_SLICE.value else None,
            ignore=None if _IGNORE.value is None else location(_IGNORE.value),
            ignore_dilation=_IGNORE_DILATION.value,
            downsample=int(_DOWNSAMPLE.value),
            axes=_AXES.value,
            labels_axes=by_structure(_LABELS_AXES.value, flag="labels_axes", example="zyx"),
            labels_offset=parse_offsets(_LABELS_OFFSET.value),
            trust_flag=_TRUST_FLAG.value,
            value_range=_value_range(_VALUE_RANGE.value),
            missing_chunks=_MISSING_CHUNKS.value,
            mrc_bytes=_MRC_BYTES.value,
            flip_y=[name.strip() for name in _FLIP_Y.value],
            overwrite=_OVERWRITE.value,
        ),
    )
    print(f"done: {output}")


def entry() -> None:
    """The console script."""
    app.run(main, kept="nothing was written, and what was there before stays")


if __name__ == "__main__":
    entry()
