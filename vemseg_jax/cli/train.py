"""`vemseg-train`: trains a network on the labelled slices of a converted volume."""

from absl import flags, logging

from vemseg_jax.cli import app
from vemseg_jax.cli.experiment import ListFlag, define_config, experiment
from vemseg_jax.commands import command, shown
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: configuration, log and checkpoints.", required=True
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write TensorBoard event files (extra: tensorboard)."
)
flags.DEFINE_flag(
    ListFlag("list_configs", "Print the experiments of this package, for --config, and stop.")
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes that train together; SLURM, Open MPI and Kubernetes are recognised.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "With --distributed elsewhere: host:port of the first process."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many.", 1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: this one's number.", 0)


def main() -> None:
    """Trains, or continues a run that was stopped."""
    from vemseg_jax.parallel import is_first, join_processes
    from vemseg_jax.train.loop import train

    config = experiment(_CONFIG)
    given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value:
        join_processes(given[0], num_processes=given[1], process_id=given[2])
    elif any(value is not None for value in given):
        raise InputError("--coordinator, --num_processes, --process_id belong to --distributed")
    logging.set_verbosity(logging.INFO if is_first() else logging.WARNING)
    workdir = local_path(_WORKDIR.value, flag="--workdir")
    train(config, workdir, tensorboard=_TENSORBOARD.value)
    if not is_first():
        return
    then = command(
        "vemseg-predict",
        f"--volume={shown(local_path(config.data.volume))}",
        f"--checkpoint={shown(workdir)}",
    )
    print(f"done; the prediction of all slices:\n  {then}")


def entry() -> None:
    """The console script."""
    app.run(main, kept="no step was done; what was saved before stays")


if __name__ == "__main__":
    entry()
