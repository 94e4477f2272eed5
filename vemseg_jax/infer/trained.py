"""A trained network with all that inference needs to know about it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from vemseg_jax import __version__
from vemseg_jax.checkpoint import BEST, LATEST, open_checkpoints
from vemseg_jax.config import plain
from vemseg_jax.data.store.lineage import Identity
from vemseg_jax.data.store.normalization import Normalization
from vemseg_jax.errors import InputError, check_choice
from vemseg_jax.models import pair, registry, torch_import

# What checkpoints of earlier versions do not say.
ADDED: dict[str, Any] = {
    "other_volumes": [],
    "volume_normalizations": [],
    "identities": [],
    "marks": [],
}


@dataclasses.dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself.

    Attributes:
      model: the network's configuration.
      structures: what each output channel segments.
      crop_size: side of the windows it was trained on, training-scale pixels.
      downsample: full-resolution pixels per training-scale pixel, 4 or 1.
      voxel_size: zyx in nm at full resolution, of the training volume.
      normalization: of the grey values, by the statistics of all training volumes together.
      precision: type of activations.
      train_slices, val_slices: z in the training volume; they are no test data.
      volume: the training volume, as given.
      fingerprint: of the training volume's images: its path can change.
      config: the whole experiment, plain values.
      networks: 1, or 2 that taught each other; the weights then stack both, see `models.pair`.
      prediction: of two networks: "first", "second" or "mean".
      other_volumes: fingerprint and training slices of more volumes it was trained on.
      volume_normalizations: of each training volume by its own statistics, where there are several.
      identities: what each training volume is known by.
      marks: z, mean and deviation of the training and validation slices of each training volume.
    """

    model: registry.ModelConfig
    structures: tuple[str, ...]
    crop_size: int
    downsample: int
    voxel_size: tuple[float, float, float]
    normalization: Normalization
    precision: str
    train_slices: tuple[int, ...]
    val_slices: tuple[int, ...]
    volume: str
    fingerprint: str
    config: dict[str, Any]
    networks: int = 1
    prediction: str = "first"
    other_volumes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    volume_normalizations: tuple[Normalization, ...] = ()
    identities: tuple[Identity, ...] = ()
    marks: tuple[tuple[tuple[int, float, float], ...], ...] = ()

    @property
    def num_train_slices(self) -> int:
        """Over all volumes."""
        return len(self.train_slices) + sum(len(slices) for _, slices in self.other_volumes)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the training volumes."""
        return (self.fingerprint, *(name for name, _ in self.other_volumes))

    @property
    def normalizations(self) -> tuple[Normalization, ...]:
        """Of the crops of each training volume."""
        # Earlier versions took the same for all.
        return self.volume_normalizations or (self.normalization,) * len(self.fingerprints)

    def normalization_in(self, fingerprint: str) -> Normalization | None:
        """Of a training volume; None for another one."""
        own = dict(zip(reversed(self.fingerprints), reversed(self.normalizations), strict=True))
        return own.get(fingerprint)

    def to_meta(self, *, step: int, val_dice: dict[str, float]) -> dict[str, Any]:
        """As JSON values, with the step and the validation Dice per structure."""
        values = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        values["model"] = plain(registry.model_to_dict(self.model))
        return {**values, "step": step, "val_dice": val_dice, "version": __version__}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "Description":
        """The inverse of `to_meta`."""
        meta = {**ADDED, **meta}
        values = {f.name: meta[f.name] for f in dataclasses.fields(cls)}
        others = meta["other_volumes"]
        values["other_volumes"] = tuple((name, tuple(slices)) for name, slices in others)
        for name in ("structures", "voxel_size", "train_slices", "val_slices"):
            values[name] = tuple(values[name])
        values["model"] = registry.model_from_dict(meta["model"])
        values["normalization"] = Normalization(**meta["normalization"])
        values["volume_normalizations"] = tuple(
            Normalization(**each) for each in meta["volume_normalizations"]
        )
        values["identities"] = tuple(Identity.from_dict(each) for each in meta["identities"])
        values["marks"] = tuple(tuple((z, m, s) for z, m, s in each) for each in meta["marks"])
        return cls(**values)


def prediction_apply(
    model: nn.Module, description: Description, *, both: bool = False
) -> Callable[..., Any]:
    """The `apply` for inference: of the network, of what predicts of two, or of both."""
    if description.networks == 1:
        return model.apply
    return pair.make_apply(model, pair.BOTH if both else description.prediction)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Description, weights (`{"params", "batch_stats"}`) and where they came from."""

    description: Description
    variables: dict[str, Any]
    workdir: Path
    which: str
    step: int


def load_trained(workdir: Path, which: str | None) -> Trained:
    """Reads a checkpoint of a training folder.

    Args:
      workdir: the folder of the run.
      which: "best", "latest", or None for the best if a validation chose one, else the latest.

    Raises:
      InputError: no checkpoint, or one whose weights do not fit the network it names.
    """
    check_choice("which", which, (None, BEST, LATEST))
    checkpoints = open_checkpoints(workdir)
    with checkpoints:
        which = which or (BEST if checkpoints.step(BEST) is not None else LATEST)
        meta = checkpoints.meta(which)
        try:
            description = Description.from_meta(meta)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{workdir}: the {which!r} checkpoint lacks a description this version can read "
                f"({error}); it was written by version {meta.get('version', 'unknown')}"
            ) from error
        shapes = torch_import.variable_shapes(description.model)
        template = {name: shapes.get(name, {}) for name in ("params", "batch_stats")}
        if description.networks == 2:
            template = jax.eval_shape(pair.join, template, template)
        variables, _ = checkpoints.restore(which, variables=template)
    check_weights(variables, template, where=f"{workdir} ({which})")
    return Trained(description, variables, workdir, which, int(meta["step"]))


def check_weights(variables: Any, template: Any, *, where: str) -> None:
    """Refuses weights of another network."""
    found = jax.tree_util.tree_map(lambda x: x.shape, variables)
    expected = jax.tree_util.tree_map(lambda x: x.shape, template)
    if found != expected:
        raise InputError(f"{where}: the saved weights belong to another network than described")
