"""`vemseg-train`: trains a network on the labelled slices of a converted volume."""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from vemseg_jax.cli import app
from vemseg_jax.config import ExperimentConfig
from vemseg_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment, such as configs/unet.py. Fields can be overridden: "
    "--config.data.volume=my.zarr --config.optimizer.learning_rate=1e-4",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: configuration, log and checkpoints.", required=True
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write TensorBoard event files (extra: tensorboard)."
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Trains, or continues a run that was stopped."""
    from vemseg_jax.train.loop import train

    config = _CONFIG.value
    if not isinstance(config, ExperimentConfig):
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise InputError(
            f"--config={path} could not be loaded; give a Python file whose get_config() returns "
            "an ExperimentConfig, such as configs/unet.py"
        )
    logging.set_verbosity(logging.INFO)
    train(config, Path(_WORKDIR.value), tensorboard=_TENSORBOARD.value)
    print(f"done: predict with  vemseg-predict --checkpoint={_WORKDIR.value} --volume=...")


def entry() -> None:
    """The console script."""
    app.run(main)


if __name__ == "__main__":
    entry()
