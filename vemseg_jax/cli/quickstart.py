"""`vemseg-quickstart`: the whole way once, on a generated stack, in a few minutes on a CPU."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.config import PRECISIONS
from vemseg_jax.paths import local_path

_OUTPUT = flags.DEFINE_string("output", "quickstart", "Folder for everything it makes.")
_PRESET = flags.DEFINE_string("preset", "biopsy1", "Phantom: biopsy1, biopsy2 or biopsy3.")
_SLICES = flags.DEFINE_integer("slices", 42, "Number of slices of the phantom.", 8)
_STEPS = flags.DEFINE_integer("steps", 300, "Training steps.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the phantom.", 0)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", list(PRECISIONS), "Type of activations and products."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier quickstart.")


def main() -> None:
    """Runs all five steps."""
    from vemseg_jax.data.phantom.stack import PhantomConfig
    from vemseg_jax.quickstart import quickstart

    shape = (_SLICES.value, *PhantomConfig().shape[1:])
    quickstart(
        local_path(_OUTPUT.value, flag="--output"),
        phantom=PhantomConfig(preset=_PRESET.value, shape=shape, seed=_SEED.value),
        steps=_STEPS.value,
        precision=_PRECISION.value,
        overwrite=_OVERWRITE.value,
    )


def entry() -> None:
    """The console script."""
    app.run(main, kept="what is done is kept")


if __name__ == "__main__":
    entry()
