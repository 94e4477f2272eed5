"""Whether predictions are still what was written."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vemseg_jax.data.store.failures import is_damage
from vemseg_jax.data.store.volume import LABELS, PARTIAL_SUFFIX, Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import ledger, outputs
from vemseg_jax.infer.grid import BlockGrid
from vemseg_jax.progress import track


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of one label image.

    Attributes:
      name: of the label.
      blocks: how many it has.
      missing: numbers of those that were never finished.
      damaged: what is wrong with others, by number.
    """

    name: str
    blocks: int
    missing: list[int]
    damaged: dict[int, str]

    @property
    def is_sound(self) -> bool:
        """Whether every block is there as it was written."""
        return not self.missing and not self.damaged

    def lines(self) -> list[str]:
        """The verdict in words."""
        if self.is_sound:
            return [f"{self.name}: all {self.blocks} blocks are as they were written"]
        lines = []
        if self.missing:
            lines.append(
                f"{self.name}: unfinished, {len(self.missing)} of {self.blocks} blocks are missing;"
                " start the prediction again to finish it"
            )
        if self.damaged:
            lines.append(
                f"{self.name}: {len(self.damaged)} of {self.blocks} blocks are damaged; predict"
                " again with --overwrite"
            )
        return [*lines, *(f"  {text}" for text in self.damaged.values())]


def verify(volume_path: Path, names: Sequence[str] = ()) -> list[Verdict]:
    """Reads every block of predictions again and compares checksums.

    Args:
      volume_path: the volume.
      names: label images; by default all that vemseg-predict wrote or began.

    Raises:
      InputError: there is none, or one named was not written by vemseg-predict.
    """
    volume = open_volume(volume_path)
    known = _known(volume)
    for name in names:
        if name not in known:
            raise InputError(
                f"{volume.path}: {name!r} has no ledger to check it against; predictions that have"
                f" one: {', '.join(known) or 'none'}"
            )
    if not known:
        raise InputError(f"{volume.path}: holds no predictions; make one with vemseg-predict")
    chosen = names or known
    return [_verify(volume, name, known[name]) for name in chosen]


def _known(volume: Volume) -> dict[str, Path]:
    """Labels with a ledger; complete ones before unfinished ones of the same name."""
    labels = volume.path / LABELS
    found: dict[str, Path] = {}
    if not labels.exists():
        return found
    for entry in sorted(labels.iterdir(), key=lambda path: path.name.startswith(".")):
        name = entry.name.removeprefix(".").removesuffix(PARTIAL_SUFFIX)
        if (entry / ledger.LEDGER / ledger.HEADER).exists():
            found.setdefault(name, entry)
    return dict(sorted(found.items()))


def _verify(volume: Volume, name: str, directory: Path) -> Verdict:
    header = ledger.read_header(directory)
    assert header is not None
    grid = BlockGrid.from_dict(header["parts"]["grid"])
    layout = outputs.layout(volume, header["parts"]["resolution"])
    done = ledger.read_ledger(directory)
    damaged = {}
    for number in track(
        sorted(done),
        total=max(1, round(grid.slices_in(done))),
        what=f"reading {name}",
        unit="slice",
        size=lambda number: grid.slices_in([number]),
    ):
        block = grid[number]
        try:
            found = outputs.read_checksums(directory, block, grid, layout)
        except InputError as error:
            if not is_damage(error):
                raise
            damaged[number] = str(error)
            continue
        if wrong := [path for path, crc in done[number].items() if found.get(path) != crc]:
            paths = " and ".join(str(directory / path) for path in wrong)
            damaged[number] = f"{paths}: {block} is not what was written"
    missing = [number for number in range(len(grid)) if number not in done]
    return Verdict(name, len(grid), missing, damaged)
