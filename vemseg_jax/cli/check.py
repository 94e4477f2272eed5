"""`vemseg-check VOLUME`: says what is in a volume, and what must be mended before training.

Exit status: 0 fine, also with warnings; 1 errors, with --strict warnings too; 2 input that cannot
be used, such as a volume that is not there.
"""

from pathlib import Path

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.config_files import config_file
from vemseg_jax.cli.ranges import parse_range
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

_VOLUME = flags.DEFINE_string("volume", None, "Converted volume (OME-Zarr); or as an argument.")
_STRUCTURES = flags.DEFINE_list("structures", [], "Labels to check; default all annotations.")
_Z_RANGE = flags.DEFINE_string("z_range", "", "Slices START:STOP (STOP not included); default all.")
_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Experiment that is to be trained, such as small_unet or my_config.py: its crops must fit. By"
    " default small_unet where there is no GPU, unet where there is one.",
)
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size",
    None,
    "Side of a training crop in pixels at training scale; by default that of --config.",
    16,
)
_EVERY = flags.DEFINE_integer(
    "every",
    None,
    "Read the image of every Nth slice, and of every Nth labelled one; by default of up to 64 of"
    " each. Labels are all read.",
    1,
)
_REPORT = flags.DEFINE_string("report", None, "Also write the report as JSON to this file.")
_PLOT = flags.DEFINE_string(
    "plot", None, "Also draw grey values and labels along z, to this PNG file."
)
_STRICT = flags.DEFINE_bool(
    "strict",
    False,
    "Warnings fail too. Exit status: 0 fine, 1 errors (or warnings with --strict), 2 input that"
    " cannot be used.",
)


def _volume(argument: str | None) -> str:
    if (argument is None) == (_VOLUME.value is None):
        raise InputError("give one volume: vemseg-check my.zarr, or --volume=my.zarr")
    return str(_VOLUME.value if argument is None else argument)


def _output(flag: flags.FlagHolder, suffix: str) -> Path | None:
    if flag.value is None:
        return None
    path = local_path(flag.value, flag=f"--{flag.name}")
    if path.suffix.lower() != suffix or not path.parent.is_dir():
        raise InputError(
            f"--{flag.name}={flag.value}: give a {suffix} file in a folder that exists"
        )
    return path


def _crop_size() -> tuple[int, str]:
    """The side of a crop and whose it is."""
    from vemseg_jax import configs
    from vemseg_jax.next_steps import suited_config

    if _CROP_SIZE.value is not None:
        return _CROP_SIZE.value, "--crop_size"
    path = config_file(_CONFIG.value or suited_config())
    size = configs.get(path).data.crop_size
    if _CONFIG.value is not None:
        return size, f"those of {path.name}"
    return size, f"those of {path.stem}, which suits this machine; --config names another"


def main(volume: str | None = None) -> int:
    """Prints the report, writes what was asked for, and returns the exit status."""
    from vemseg_jax.data.check.plot import plot_report
    from vemseg_jax.data.check.report import report_text, write_report
    from vemseg_jax.data.check.volume import CheckOptions, check_volume

    report_path, plot_path = _output(_REPORT, ".json"), _output(_PLOT, ".png")
    crop_size, crop_from = _crop_size()
    options = CheckOptions(
        structures=_STRUCTURES.value,
        z_range=parse_range(_Z_RANGE.value),
        crop_size=crop_size,
        crop_from=crop_from,
        every=_EVERY.value,
    )
    path = _volume(volume)
    report = check_volume(path, options)
    print(report_text(report))
    if report_path:
        write_report(report_path, report)
    if plot_path:
        plot_report(plot_path, report, path)
    return 0 if report.passes(strict=_STRICT.value) else 1


def entry() -> None:
    """The console script."""
    app.run(main, positional=1)


if __name__ == "__main__":
    entry()
