"""`vemseg-train`: trains a network on the labelled slices of a converted volume."""

from pathlib import Path

from absl import flags, logging

from vemseg_jax.cli import app
from vemseg_jax.cli.experiment import define_config, experiment

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: configuration, log and checkpoints.", required=True
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write TensorBoard event files (extra: tensorboard)."
)


def main() -> None:
    """Trains, or continues a run that was stopped."""
    from vemseg_jax.train.loop import train

    config = experiment(_CONFIG)
    logging.set_verbosity(logging.INFO)
    train(config, Path(_WORKDIR.value), tensorboard=_TENSORBOARD.value)
    print(f"done: predict with  vemseg-predict --checkpoint={_WORKDIR.value} --volume=...")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
