"""The `--config` flag of binaries that need a whole experiment."""

import sys

from absl import flags
from ml_collections import config_flags

from vemseg_jax import configs
from vemseg_jax.cli.config_file import Parser
from vemseg_jax.config import ExperimentConfig
from vemseg_jax.errors import InputError


class ListFlag(flags.BooleanFlag):
    """Prints the table of experiments as soon as it is met, and ends the process.

    So it needs none of the flags that are required, as `--help` does not.
    """

    def __init__(self, name: str, text: str):
        super().__init__(name, False, text)

    def parse(self, argument: str | bool) -> None:
        """Prints and exits with status 0 where the flag is on."""
        super().parse(argument)
        if self.value:
            print(configs.table())
            sys.exit(0)


def define_config() -> flags.FlagHolder:
    """Defines `--config`, a Python file with a `get_config()`; fields can be overridden."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "Experiment, such as configs/unet.py. Fields can be overridden: "
        "--config.data.volume=my.zarr --config.optimizer.learning_rate=1e-4",
        lock_config=True,
    )
    # Its own parser gives errors without the file that they are in.
    flags.FLAGS["config"].parser = Parser("config")
    flags.mark_flag_as_required("config")
    return holder


def experiment(holder: flags.FlagHolder) -> ExperimentConfig:
    """The experiment that the flag names.

    Raises:
      InputError: the file gave something else.
    """
    config = holder.value
    if not isinstance(config, ExperimentConfig):
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        raise InputError(
            f"--config={path} could not be loaded; give a Python file whose get_config() returns "
            "an ExperimentConfig, such as configs/unet.py"
        )
    return config
