"""Prints the FLOPs that each of 1 and of 4 devices spends on a step; a test runs it with four."""

import dataclasses
import sys
from pathlib import Path

from tests.train.runs import small_config
from vemseg_jax.checkpoint import NoCheckpoints
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.parallel import place
from vemseg_jax.train.batches import find_split, make_batches
from vemseg_jax.train.setup import describe, prepare


def flops(volume: str, method: str, devices: int) -> float:
    """Of the compiled step of 8 labelled (and 8 unlabelled) crops."""
    config = small_config(volume, batch_size=8 if method == "supervised" else 16)
    config.cps = dataclasses.replace(config.cps, method=method)
    # Of a network this small the optimizer, which no device can leave to the others, is a part.
    config.data.crop_size = 64
    opened = open_volume(Path(volume))
    split = find_split(opened, config)
    placement = place(8, devices=devices)
    with make_batches(opened, config, split, placement) as batches:
        description = describe(config, opened, split)
        run = prepare(config, description, opened, batches, NoCheckpoints(), placement)
        return run.step.lower(run.state, *batches(0)).compile().cost_analysis()["flops"]


if __name__ == "__main__":
    print(*(flops(*sys.argv[1:3], devices) for devices in (1, 4)))
