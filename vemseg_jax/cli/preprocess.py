"""`vemseg-preprocess`: aligns the slices of a converted volume and equalises their histograms."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.paths import local_path

_VOLUME = flags.DEFINE_string(
    "volume", None, "Converted volume (OME-Zarr); it is only read.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The OME-Zarr volume to make, such as aligned.zarr.", required=True
)
_ALIGN = flags.DEFINE_bool(
    "align", False, "Align slices in x and y, and crop to the area that all slices have in common."
)
_SHIFT = flags.DEFINE_enum(
    "shift", "integer", ["integer", "subpixel"], "Move by whole pixels, or interpolate."
)
_ESTIMATE_AT = flags.DEFINE_enum(
    "estimate_at",
    "auto",
    ["auto", "training", "full"],
    "Scale at which shifts are measured, to a twentieth of its pixels; auto: training where its"
    " slices have 256 pixels or more along both sides.",
)
_MAX_SHIFT = flags.DEFINE_float(
    "max_shift",
    None,
    "The furthest that consecutive slices may lie apart, pixels; default a tenth of the shorter"
    " side.",
)
_KEEP_TREND = flags.DEFINE_float(
    "keep_trend",
    20.0,
    "Leave shifts that build up over more than about this many slices, by less than half a pixel"
    " a slice: tissue that runs at a slant looks the same. 0 corrects that too.",
)
_HISTOGRAM = flags.DEFINE_enum(
    "histogram",
    "none",
    ["none", "equalize", "clahe", "match"],
    "Per slice, after alignment: histogram equalisation, contrast-limited adaptive equalisation,"
    " or the histogram of --reference_slice.",
)
_REFERENCE_SLICE = flags.DEFINE_integer("reference_slice", None, "z for --histogram=match.")
_CLIP_LIMIT = flags.DEFINE_float(
    "clip_limit", 0.01, "Limit of CLAHE, 0-1; higher for more contrast."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace an earlier volume once the new one is complete."
)


def main() -> None:
    """Preprocesses and prints where the volume is."""
    from vemseg_jax.data.preprocess.estimation import AlignOptions
    from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
    from vemseg_jax.errors import InputError

    if not _ALIGN.value:
        for flag in (_SHIFT, _ESTIMATE_AT, _MAX_SHIFT, _KEEP_TREND):
            if flag.present:
                raise InputError(f"--{flag.name}={flag.value}: only --align uses it; add --align")
    if _CLIP_LIMIT.present and _HISTOGRAM.value != "clahe":
        raise InputError(f"--clip_limit={_CLIP_LIMIT.value:g}: only --histogram=clahe uses it")
    align = AlignOptions(
        shift=_SHIFT.value,
        estimate_at=_ESTIMATE_AT.value,
        max_shift=_MAX_SHIFT.value,
        keep_trend=_KEEP_TREND.value,
    )
    output = preprocess(
        local_path(_VOLUME.value, flag="--volume"),
        local_path(_OUTPUT.value, flag="--output"),
        PreprocessOptions(
            align=align if _ALIGN.value else None,
            histogram=_HISTOGRAM.value,
            reference_slice=_REFERENCE_SLICE.value,
            clip_limit=_CLIP_LIMIT.value,
            overwrite=_OVERWRITE.value,
        ),
    )
    print(f"done: {output}")


def entry() -> None:
    """The console script."""
    app.run(main, kept="the slices that are done are kept")


if __name__ == "__main__":
    entry()
