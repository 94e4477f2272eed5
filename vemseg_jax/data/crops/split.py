"""Which labelled slices train and which are held out."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vemseg_jax.config import DataConfig
from vemseg_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Split:
    """Slice numbers (z), ascending."""

    train: tuple[int, ...]
    val: tuple[int, ...]


def evenly_spaced(items: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` items with the first and the last among them; one item is the middle one."""
    if count == 1:
        return (items[len(items) // 2],)
    index = np.round(np.linspace(0, len(items) - 1, count)).astype(int)
    return tuple(items[i] for i in index)


def _interior(items: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` items in the middles of as many equal parts, so that the ends stay."""
    index = ((np.arange(count) + 0.5) * len(items) / count).astype(int)
    return tuple(items[i] for i in index)


def _chosen(name: str, wanted: Sequence[int], labelled: Sequence[int]) -> tuple[int, ...]:
    if missing := sorted(set(wanted) - set(labelled)):
        raise InputError(
            f"--config.data.{name} names slices without a label: {missing}; labelled slices "
            f"in range: {_short(labelled)}"
        )
    return tuple(sorted(set(wanted)))


def _short(items: Sequence[int]) -> str:
    items = list(items)
    return str(items) if len(items) <= 12 else f"{len(items)} from {items[0]} to {items[-1]}"


def _take(name: str, items: Sequence[int], count: int) -> None:
    if count > len(items):
        raise InputError(
            f"--config.data.{name} is {count}, but {len(items)} labelled slices are left to "
            f"choose from: {_short(items)}"
        )


def split_slices(labelled: Sequence[int], config: DataConfig) -> Split:
    """Chooses training and validation slices among the labelled ones.

    Args:
      labelled: z of every slice that has a label of at least one of the structures.
      config: explicit slices or counts; see `DataConfig`.

    Raises:
      InputError: a slice that is not labelled, in both sets, or too few slices.
    """
    low, high = config.z_range if tuple(config.z_range) != (0, 0) else (0, np.inf)
    labelled = sorted(z for z in labelled if low <= z < high)
    if not labelled:
        raise InputError(
            f"--config.data.z_range={tuple(config.z_range)} holds no labelled slice; "
            "training needs at least one"
        )
    val = _chosen("val_slices", config.val_slices, labelled)
    train = _chosen("train_slices", config.train_slices, labelled)
    if both := sorted(set(train) & set(val)):
        raise InputError(f"slices {both} are in both train_slices and val_slices of --config.data")
    if not train and config.num_train_slices:
        left = [z for z in labelled if z not in val]
        _take("num_train_slices", left, config.num_train_slices)
        train = evenly_spaced(left, config.num_train_slices)
    if not val and config.num_val_slices:
        left = [z for z in labelled if z not in train]
        spare = len(left) - (0 if train else 1)
        if config.num_val_slices > spare:
            raise InputError(
                f"--config.data.num_val_slices is {config.num_val_slices}, but only {spare} of "
                f"the labelled slices {_short(labelled)} can be held out; lower it (0 trains "
                "without validation) or label more slices"
            )
        val = _interior(left, config.num_val_slices)
    if not train:
        train = tuple(z for z in labelled if z not in val)
    return Split(train=train, val=val)
