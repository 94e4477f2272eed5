"""How the blocks of some images are predicted: what the network must fit, and the way of a block.

The images may be a volume on disk (`work.Work`) or an array in memory (`segmenter.Segmenter`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vemseg_jax.accelerator import check_device
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import outputs as outputs_
from vemseg_jax.infer.decide import decide
from vemseg_jax.infer.grey_values import grey_values
from vemseg_jax.infer.grid import Block, make_grid
from vemseg_jax.infer.job import BlockError, PredictOptions
from vemseg_jax.infer.predictor import WINDOW, Predictor, make_planner, make_predictor
from vemseg_jax.infer.trained import Description, Trained
from vemseg_jax.infer.windows import Box, WindowPlan, grown

PIXEL_TOLERANCE = 0.2


def training_pixels(voxel_size: Sequence[float], downsample: int) -> tuple[float, float]:
    """Height and width, nm, of a training-scale pixel; `voxel_size` zyx at full resolution."""
    return voxel_size[1] * downsample, voxel_size[2] * downsample


def pixels_fit(found: tuple[float, float], learned: tuple[float, float]) -> bool:
    """Whether pixels of the training scale are as large as those that a network learned."""
    return all(abs(a - b) <= PIXEL_TOLERANCE * b for a, b in zip(found, learned, strict=True))


def check_volume(volume: Volume, description: Description) -> None:
    """Refuses a volume whose pixels at training scale are not those the network learned."""
    found = training_pixels(volume.voxel_size, volume.downsample)
    learned = training_pixels(description.voxel_size, description.downsample)
    if not pixels_fit(found, learned):
        raise InputError(
            f"{volume.path} has training-scale pixels of {found[0]:g} x {found[1]:g} nm "
            f"(downsample {volume.downsample}), but the network learned pixels of "
            f"{learned[0]:g} x {learned[1]:g} nm; convert with a --voxel_size and --downsample "
            f"that bring them within {100 * PIXEL_TOLERANCE:.0f} %"
        )


def as_asked(trained: Trained, options: PredictOptions) -> Trained:
    """The network, with another precision or of a pair another prediction where one was chosen."""
    if trained.description.networks == 1:
        for flag, chosen in (
            (f"--prediction={options.prediction}", options.prediction is not None),
            ("--disagreement", options.disagreement),
        ):
            if chosen:
                raise InputError(
                    f"{flag} is of two networks, but {trained.workdir} trained one; leave it out"
                )
    choices = {"prediction": options.prediction, "precision": options.precision}
    made: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    return dataclasses.replace(
        trained, description=dataclasses.replace(trained.description, **made)
    )


def _chosen(volume: Volume, slices: Sequence[int]) -> list[int]:
    depth = volume.shape[0]
    if outside := [z for z in slices if not 0 <= z < depth]:
        raise InputError(f"--slices names {outside}; {volume.path} has slices 0 to {depth - 1}")
    return sorted(set(slices)) if slices else list(range(depth))


class BlockPrediction:
    """The prediction of some images, open in this process.

    Attributes:
      volume, trained: what is predicted with what.
      options: how.
      grey_values: how they are normalised.
      full: whether the result has full resolution, not the training scale.
      level: of the images that pass the network, FULL or TRAINING.
      grid: the blocks.
      layout: of what a block becomes.
      quantities: what is made of a block, see `decide`.

    Raises:
      InputError: anything that does not fit; see the message.
    """

    def __init__(
        self,
        volume: Volume,
        trained: Trained,
        options: PredictOptions,
        *,
        quantities: Sequence[str],
        slices: Sequence[int] = (),
        make: Callable[..., Predictor] = make_predictor,
    ):
        self.volume, self.options = volume, options
        self.trained = as_asked(trained, options)
        description = self.trained.description
        check_volume(volume, description)
        self.grey_values = grey_values(options.normalization, volume, description)
        self.full = options.resolution == FULL and volume.downsample != 1
        # The reference's windows are cut at full resolution; whole slices pass at training scale.
        self.level = FULL if self.full and options.method.name == WINDOW else TRAINING
        self.grid = make_grid(
            volume.plane_shape(TRAINING), _chosen(volume, slices), depth=options.block_slices
        )
        self.layout = outputs_.layout(volume, FULL if self.full else TRAINING)
        self.quantities = tuple(sorted(quantities))
        self._make = make
        self._scale = volume.downsample if self.level == FULL else 1
        self._planner = make_planner(
            options.method,
            self.trained,
            shape=volume.plane_shape(self.level),
            scale=self._scale,
            part=self.grid.part,
        )

    @functools.cached_property
    def _predict(self) -> Predictor:
        """Made when the first block is predicted: until then the device belongs to others."""
        check_device()
        return self._make(
            self.trained,
            self.options.method,
            scale=self._scale,
            batch_size=self.options.batch_size,
            both=self.options.disagreement,
        )

    def plan(self, block: Block) -> WindowPlan:
        """The windows of a block; `source` is what they need of its slices at `level`."""
        box, halo = block.box, 0
        if self.level == FULL:
            box = self._full_box(block)
        elif self.full:
            # What lies between the last pixels of this block and the first of the next.
            halo = 1
        return self._planner.over(box, halo=halo)

    def _full_box(self, block: Block) -> Box:
        return outputs_.region_of(block, self.grid, self.layout, "0")

    def predict(self, block: Block, planes: np.ndarray) -> dict[str, jax.Array]:
        """What is to be kept of a block, on the device, and whether it is sound.

        Args:
          block: which.
          planes: `[s, h, w]` grey values of the `source` of its plan.

        Returns:
          The `quantities`, `[s, h, w, structures]`, and "finite", whether the network gave numbers
          everywhere.
        """
        images, normalization = self.grey_values.of(block.slices, planes)
        prob = self._predict(images, self.plan(block), normalization)
        enlarged = None
        if self.full and self.level == TRAINING:
            (y0, y1), (x0, x1) = self._full_box(block)
            (top, _), (left, _) = grown(block.box, 1, self.grid.shape)
            f = self.volume.downsample
            enlarged = ((y0 - f * top, y1 - f * top), (x0 - f * left, x1 - f * left))
        description = self.trained.description
        return decide(
            prob,
            enlarged=enlarged,
            factor=self.volume.downsample,
            prediction=description.prediction,
            both=self.options.disagreement,
            exclusive=description.model.exclusive,
            quantities=self.quantities,
        )

    def check_finite(self, block: Block, results: dict[str, jax.Array]) -> None:
        """Waits for a block.

        Raises:
          BlockError: the network gave no numbers.
        """
        if not bool(results["finite"]):
            raise BlockError(
                f"{block}: the network gave no numbers (nan); check the weights of"
                f" {self.trained.workdir}"
            )
