"""What a prediction writes: label images, block by block, with a checksum of every block."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vemseg_jax.data.store.downsample import downsample_image, downsample_label
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.label_layout import EXTRA, EXTRA_STEP, LabelLayout
from vemseg_jax.data.store.label_names import DISAGREEMENT_SUFFIX, MASK_SUFFIX, PROBABILITY_SUFFIX
from vemseg_jax.data.store.label_writer import PREDICTION, PROBABILITY, default_fill_value
from vemseg_jax.data.store.volume import FULL, LABELS, PARTIAL_SUFFIX, TRAINING, Volume, open_array
from vemseg_jax.errors import InputError
from vemseg_jax.infer.grid import Block, BlockGrid
from vemseg_jax.infer.windows import Box

MASK, DISAGREEMENT = "mask", "disagreement"
QUANTITIES = (MASK, PROBABILITY, DISAGREEMENT)
# Array -> CRC-32 of a block's pixels, slice by slice.
Checksums = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Output:
    """One label image of a prediction.

    Attributes:
      name: of the label.
      structure: what it shows.
      channel: of the network's structures.
      quantity: "mask", "probability" or "disagreement".
    """

    name: str
    structure: str
    channel: int
    quantity: str

    @property
    def kind(self) -> str:
        """What the label records as its kind."""
        return PREDICTION if self.quantity == MASK else PROBABILITY

    @property
    def is_shaded(self) -> bool:
        """Whether its values are 0 to 255, not 0 and 1."""
        return self.quantity != MASK

    @property
    def fill_value(self) -> int:
        """Of slices that are not predicted."""
        return 0 if self.is_shaded else default_fill_value(self.kind)


def plan_outputs(
    structures: Sequence[str], suffix: str, *, probabilities: bool, disagreement: bool
) -> list[Output]:
    """The label images of a prediction: `nuclei_pred`, `nuclei_prob`, `nuclei_disagreement`."""
    outputs = []
    for channel, structure in enumerate(structures):
        name = structure + suffix
        outputs.append(Output(name, structure, channel, MASK))
        stem = name.removesuffix(MASK_SUFFIX)
        if probabilities:
            outputs.append(Output(stem + PROBABILITY_SUFFIX, structure, channel, PROBABILITY))
        if disagreement:
            outputs.append(Output(stem + DISAGREEMENT_SUFFIX, structure, channel, DISAGREEMENT))
    return outputs


def final_directory(volume: Path, name: str) -> Path:
    """Where a complete label image stands."""
    return volume / LABELS / name


def partial_directory(volume: Path, name: str) -> Path:
    """Where it is while it is being written."""
    return volume / LABELS / f".{name}{PARTIAL_SUFFIX}"


def layout(volume: Volume, resolution: str) -> LabelLayout:
    """The arrays of a prediction at "full" resolution or at "training" scale."""
    return LabelLayout.of(
        (FULL, TRAINING) if resolution == FULL else (TRAINING,),
        shape=volume.shape,
        voxel_size=volume.voxel_size,
        downsample=volume.downsample,
    )


def region_of(block: Block, grid: BlockGrid, layout: LabelLayout, path: str) -> Box:
    """The box of a block in the array `path` of a label."""
    sides = []
    fine, coarse = layout.downsample, layout.factors[path]
    for (low, high), size, length in zip(block.box, grid.shape, layout.planes[path], strict=True):
        # The last box goes on to the end of the array.
        sides.append((low * fine // coarse, length if high == size else high * fine // coarse))
    return sides[0], sides[1]


def _coarser(planes: np.ndarray, path: str, quantity: str) -> np.ndarray:
    if path == EXTRA:
        return planes[:, ::EXTRA_STEP, ::EXTRA_STEP]
    return downsample_label(planes) if quantity == MASK else downsample_image(planes)


class OutputError(InputError):
    """A block that could not be stored; the next ones could not be either."""


class BlockWriter:
    """Writes the blocks of one label image, from any thread or process."""

    def __init__(self, directory: Path, output: Output, layout: LabelLayout, grid: BlockGrid):
        self._output, self._layout, self._grid = output, layout, grid
        try:
            self._arrays = layout.create(
                directory,
                fill_value=output.fill_value,
                reopen=True,
                part=None if grid.part == grid.shape else grid.part,
            )
        except (ValueError, OSError) as error:
            why = reason(error, writing=True)
            raise InputError(f"{directory}: cannot be written: {why}") from error

    def write(self, block: Block, planes: np.ndarray) -> Checksums:
        """Writes a block to every array and returns once it is on disk.

        Args:
          block: which.
          planes: `[s, h, w]` uint8 at the finest level.

        Raises:
          OutputError: it could not be stored, say because the disk is full.
        """
        checksums, futures = {}, []
        finest = next(iter(self._arrays))
        for path, array in self._arrays.items():
            level = planes if path == finest else _coarser(planes, path, self._output.quantity)
            level = np.ascontiguousarray(level)
            checksums[path] = zlib.crc32(level.data)
            (y0, y1), (x0, x1) = region_of(block, self._grid, self._layout, path)
            futures += [
                array[z, y0:y1, x0:x1].write(plane)
                for z, plane in zip(block.slices, level, strict=True)
            ]
        for future in futures:
            try:
                future.result()
            except (ValueError, OSError) as error:
                raise OutputError(
                    f"{self._output.name}: {block}: {reason(error, writing=True)}"
                ) from error
        return checksums


def read_checksums(
    directory: Path, block: Block, grid: BlockGrid, layout: LabelLayout
) -> Checksums:
    """What `BlockWriter.write` would return for what is on disk.

    Raises:
      InputError: an array or a block cannot be read.
    """
    checksums = {}
    for path in layout.planes:
        array = open_array(directory / path)
        (y0, y1), (x0, x1) = region_of(block, grid, layout, path)
        futures = [array[z, y0:y1, x0:x1].read() for z in block.slices]
        total = 0
        for future in futures:
            try:
                total = zlib.crc32(np.ascontiguousarray(future.result()).data, total)
            except (ValueError, OSError) as error:
                why = reason(error, damaged="")
                text = f"{block} cannot be read" + (f": {why}" if why else "")
                raise InputError(f"{directory / path}: {text}") from error
        checksums[path] = total
    return checksums
