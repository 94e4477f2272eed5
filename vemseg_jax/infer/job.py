"""What to predict, as it travels between processes."""

import dataclasses
from pathlib import Path

from vemseg_jax.config import PRECISIONS, PREDICTIONS
from vemseg_jax.data.store.label_names import MASK_SUFFIX
from vemseg_jax.data.store.volume import FULL, TRAINING
from vemseg_jax.errors import InputError, check_choice
from vemseg_jax.infer.grey_values import NORMALIZATIONS, VOLUME
from vemseg_jax.infer.predictor import Method


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes:
      resolution: "training", or "full" for full resolution (with the training scale made from
        it by the rule for labels).
      batch_size: windows per call of the network.
      suffix: added to a structure's name for the result.
      prediction: of two networks: "first", "second" or "mean"; None as they were trained for.
      precision: type of activations and products; None as the network was trained.
      method: how slices pass through the network.
      probabilities: also store them, 0 to 255 for 0 to 1.
      disagreement: of two networks, also store how far their probabilities lie apart, likewise.
      block_slices: slices that are predicted together; None for as many as have about 2 million
        pixels at training scale.
      normalization: of grey values: by the statistics of the "volume", of the "training" or of
        each "slice", see `grey_values`.
    """

    resolution: str = TRAINING
    batch_size: int = 8
    suffix: str = MASK_SUFFIX
    prediction: str | None = None
    precision: str | None = None
    method: Method = dataclasses.field(default_factory=Method)
    probabilities: bool = False
    disagreement: bool = False
    block_slices: int | None = None
    normalization: str = VOLUME

    def check(self) -> None:
        """Raises InputError for values that cannot be used."""
        self.method.check()
        for flag, found, allowed in (
            ("normalization", self.normalization, NORMALIZATIONS),
            ("resolution", self.resolution, (TRAINING, FULL)),
            ("prediction", self.prediction, (None, *PREDICTIONS)),
            ("precision", self.precision, (None, *PRECISIONS)),
        ):
            check_choice(flag, found, allowed)
        for flag, number in (("batch_size", self.batch_size), ("block_slices", self.block_slices)):
            if number is not None and number < 1:
                raise InputError(f"--{flag}={number}: give at least 1")


@dataclasses.dataclass(frozen=True)
class Job:
    """What to predict: paths, slices and options.

    Attributes:
      volume: a converted volume.
      workdir, which: the folder of a training run and its checkpoint, "best", "latest" or None
        for the best if there is one.
      slices: z to predict; empty for all.
      options: see `PredictOptions`.
    """

    volume: Path
    workdir: Path
    which: str | None = None
    slices: tuple[int, ...] = ()
    options: PredictOptions = dataclasses.field(default_factory=PredictOptions)


class BlockError(InputError):
    """A block that cannot be predicted; the others can."""
