"""A training that is asked to stop, in a process of its own."""

import os
import subprocess
import sys

from tests.train.runs import write_volume

CONFIG = """
from tests.train.runs import small_config
def get_config():
    return small_config({volume!r}, steps=100_000, log_every=1, eval_every=0, checkpoint_every=99)
"""


def training_flags(folder):
    """`--config` and `--workdir` of a training that does not end by itself; writes its volume."""
    config = folder / "c.py"
    config.write_text(CONFIG.format(volume=str(write_volume(folder / "v.zarr"))))
    return [f"--config={config}", f"--workdir={folder / 'run'}"]


def stopped(command, number):
    """Sends a training the signal after its second step; the lines that it leaves on stderr."""
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        for line in process.stderr:
            if "step 2/" in line:
                break
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 130
    return errors
