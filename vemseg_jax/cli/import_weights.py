"""`vemseg-import-weights`: makes a run of weights that were trained with torch."""

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.experiment import define_config, experiment
from vemseg_jax.cli.flag_paths import given_path
from vemseg_jax.commands import command, shown
from vemseg_jax.paths import local_path

_CONFIG = define_config()
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "The weights: .safetensors, .npz, or a state_dict saved by torch (extra: torch).",
    required=True,
)
_ENCODER = flags.DEFINE_bool(
    "encoder", False, "The weights are an ImageNet classifier's: only the encoder takes them."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "New folder for the run.", required=True)


def main() -> None:
    """Imports the weights and says what can be done with them."""
    from vemseg_jax.train.import_weights import import_weights

    weights, workdir = given_path(_WEIGHTS), given_path(_WORKDIR)
    assert weights is not None and workdir is not None
    count = import_weights(experiment(_CONFIG), workdir, weights, encoder=_ENCODER.value)
    print(f"imported {count} arrays of {weights} into {workdir}")
    config = experiment(_CONFIG)
    volume = shown(local_path(config.data.volume))
    then = command("vemseg-predict", f"--volume={volume}", f"--checkpoint={shown(workdir)}")
    print(f"to predict with them:\n  {then}")
    print("to train on: vemseg-train with the same --config flags and --workdir")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
