"""The blocks that a prediction is made in: a few slices, and a part of them where they are large.

Each block owns whole shards of every array that is written.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vemseg_jax.data.store.volume import CHUNK
from vemseg_jax.infer.windows import Box, Pair

# Slices that are predicted together hold about so many pixels of the training scale.
BLOCK_PIXELS = 2**21
# Of few or small slices there are at least so many blocks: progress shows, and little is lost.
LEAST_BLOCKS = 10
# A slice with more of them is predicted in parts of at most so many along each axis.
SLICE_PIXELS, PART = 2**22, 4 * CHUNK


@dataclasses.dataclass(frozen=True)
class Block:
    """Part of some slices.

    Attributes:
      number: in the grid.
      slices: z of each.
      box: ((y0, y1), (x0, x1)) in pixels of the training scale.
    """

    number: int
    slices: tuple[int, ...]
    box: Box

    def __str__(self) -> str:
        """Where it lies, for messages."""
        first, last = self.slices[0], self.slices[-1]
        return f"slice {first}" if first == last else f"slices {first} to {last}"


@dataclasses.dataclass(frozen=True)
class BlockGrid:
    """All blocks of a prediction.

    Attributes:
      shape: (h, w) of a slice at training scale.
      part: (h, w) of the parts of a slice, or its shape.
      depth: slices in a block.
      slices: z of all of them, ascending.
    """

    shape: Pair
    part: Pair
    depth: int
    slices: tuple[int, ...]

    @property
    def parts(self) -> Pair:
        """Number of parts along y and along x."""
        h, w = (-(-n // p) for n, p in zip(self.shape, self.part, strict=True))
        return h, w

    def __len__(self) -> int:
        rows, columns = self.parts
        return -(-len(self.slices) // self.depth) * rows * columns

    def __getitem__(self, number: int) -> Block:
        if not 0 <= number < len(self):
            raise IndexError(number)
        rows, columns = self.parts
        group, place = divmod(number, rows * columns)
        low = [n * part for n, part in zip(divmod(place, columns), self.part, strict=True)]
        high = [min(n + p, size) for n, p, size in zip(low, self.part, self.shape, strict=True)]
        slices = self.slices[group * self.depth : (group + 1) * self.depth]
        return Block(number, slices, ((low[0], high[0]), (low[1], high[1])))

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))

    def slices_in(self, numbers: Iterable[int]) -> float:
        """How many slices some blocks are together; a block may be a part of one."""
        whole = self.shape[0] * self.shape[1]
        return sum(
            len(block.slices)
            * (block.box[0][1] - block.box[0][0])
            * (block.box[1][1] - block.box[1][0])
            / whole
            for block in map(self.__getitem__, numbers)
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BlockGrid":
        """The grid that `config.plain` made JSON values of."""
        (h, w), (y, x) = values["shape"], values["part"]
        return cls((h, w), (y, x), int(values["depth"]), tuple(values["slices"]))


def make_grid(shape: Pair, slices: Sequence[int], *, depth: int | None = None) -> BlockGrid:
    """The blocks for slices `(h, w)` at training scale, `depth` of them at a time."""
    h, w = shape
    if h * w > SLICE_PIXELS:
        return BlockGrid(shape, (min(h, PART), min(w, PART)), depth or 1, tuple(slices))
    if depth is None:
        depth = min(max(1, BLOCK_PIXELS // (h * w)), -(-len(slices) // LEAST_BLOCKS))
    return BlockGrid(shape, shape, max(1, depth), tuple(slices))
