"""A trained network, volumes to predict, and what stands on disk afterwards."""

import shutil
import sys

from tests.train.runs import small_config, write_volume
from vemseg_jax.infer import ledger
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.outputs import final_directory, partial_directory
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.train.loop import train

NAME = "nuclei_pred"
# Every slice a block.
SINGLE = PredictOptions(block_slices=1)


def train_small(folder, *, depth=12):
    """A network trained for two steps, and its volume."""
    volume = write_volume(folder / "v.zarr", depth=depth, size=(36, 42))
    train(small_config(volume, steps=2), folder / "run")
    return volume, folder / "run"


def copy(trained, folder):
    """The volume of `trained` elsewhere, with the same network."""
    return shutil.copytree(trained[0], folder / "v.zarr"), trained[1]


def final(volume, name=NAME):
    return final_directory(volume, name)


def partial(volume, name=NAME):
    return partial_directory(volume, name)


def files(directory):
    """Bytes of every file of a label image, apart from the order of the ledger's lines."""
    found = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".jsonl"
    }
    return {**found, "ledger": ledger.read_ledger(directory)}


def expected_files(trained, folder):
    """Those of an uninterrupted prediction in one process."""
    volume, workdir = copy(trained, folder)
    assert predict_volume(volume, workdir, options=SINGLE).complete
    return files(final(volume))


# A process of its own that predicts, each block held up, so that it can be stopped in between.
DRIVER = """
import sys, time
from pathlib import Path
from vemseg_jax.infer import work
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.predict import predict_volume
store = work.Work.store
def slow(self, block, results):
    time.sleep(0.02)
    return store(self, block, results)
work.Work.store = slow
print("ready", flush=True)
options = PredictOptions(block_slices=1)
result = predict_volume(Path(sys.argv[1]), Path(sys.argv[2]), options=options)
sys.exit(0 if result.complete else 1)
"""


def driver(volume, workdir):
    """The command line of that process."""
    return [sys.executable, "-c", DRIVER, str(volume), str(workdir)]
