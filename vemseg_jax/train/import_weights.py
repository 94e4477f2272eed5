"""A run whose weights come from torch."""

from pathlib import Path

import jax
import numpy as np

from vemseg_jax.checkpoint import LATEST, Checkpoints
from vemseg_jax.config import ExperimentConfig, check_config, is_pair
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.models import pair, registry, torch_import
from vemseg_jax.models.torch_files import read_state
from vemseg_jax.paths import local_path
from vemseg_jax.train.batches import find_split
from vemseg_jax.train.folder import RunFolder, is_begun
from vemseg_jax.train.optimizer import create_optimizer
from vemseg_jax.train.parts import initial_state
from vemseg_jax.train.setup import describe, optimizer_item
from vemseg_jax.train.volumes import with_absolute_volumes


def import_weights(config: ExperimentConfig, workdir: Path, weights: Path, *, encoder: bool) -> int:
    """Makes a run whose first checkpoint holds weights from torch: to predict or to train on.

    Args:
      config: the experiment; the volume gives grey-value statistics and labelled slices.
      workdir: a new folder.
      weights: see `torch_files.read_state`.
      encoder: the weights are those of an ImageNet classifier, for the encoder alone; the rest
        starts at random. Of two networks both get the encoder, or else the first all weights.

    Returns:
      How many arrays were taken from the file.

    Raises:
      InputError: weights, volume or folder that cannot be used; no folder is left then.
    """
    check_config(config)
    config = with_absolute_volumes(config)
    workdir = local_path(workdir, flag="--workdir")
    state_dict = read_state(weights)
    if is_begun(workdir):
        raise InputError(f"{workdir} holds a run already; choose a new --workdir")
    model = registry.create_model(config.model)
    optimizer = create_optimizer(config.optimizer, steps=config.train.steps)
    state = initial_state(config, model, optimizer)
    networks = [pair.network(state.variables, n) for n in (0, 1)] if is_pair(config) else []
    for n, start in enumerate(networks or [state.variables]):
        if encoder:
            found = torch_import.encoder_to_flax(config.model, state_dict, start)
        elif n == 0:
            found = torch_import.to_flax(config.model, state_dict)
        else:
            # Two equal networks have nothing to teach each other.
            found = start
        networks[n : n + 1] = [found]
    variables = pair.join(*networks) if is_pair(config) else networks[0]
    variables = jax.tree.map(lambda x: np.asarray(x, np.float32), variables)
    volume = open_volume(config.data.volume)
    description = describe(config, volume, find_split(volume, config))
    with RunFolder(workdir, config) as folder:
        folder.open()
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(
                LATEST,
                0,
                variables=variables,
                optimizer=jax.device_get(optimizer_item(state)),
                meta=description.to_meta(step=0, val_dice={}),
            )
        folder.claim()
    return len(state_dict)
