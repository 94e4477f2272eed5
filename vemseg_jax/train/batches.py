"""Which slices a run trains on, and whether they live on the device or are read as it goes."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.data.crops import input_pipeline
from vemseg_jax.data.crops.disk_reader import WindowReader, planes_bytes
from vemseg_jax.data.crops.sampling import CropSampler, EvenSampler
from vemseg_jax.data.crops.sources import Batches, Joined, Resident, Source, Streamed
from vemseg_jax.data.crops.split import Split, split_slices
from vemseg_jax.data.store import lineage
from vemseg_jax.data.store.volume import Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.memory import SLICE_SHARE, device_memory
from vemseg_jax.parallel import ONE_DEVICE, Placement
from vemseg_jax.units import amount

GIB = 2**30
# What the seed of each further volume is away from the one before.
VOLUME_SEED = 7_919


@dataclasses.dataclass(frozen=True)
class Part:
    """What one volume gives to each batch: how many crops of a kind, and the seed they are of."""

    crops: int
    seed: int


def find_split(volume: Volume, config: ExperimentConfig) -> Split:
    """Which labelled slices train and which are held out.

    Raises:
      InputError: slices or labels that are not there.
    """
    data = config.data
    if data.z_range[1] > volume.shape[0]:
        raise InputError(
            f"--config.data.z_range={tuple(data.z_range)} goes beyond the "
            f"{volume.shape[0]} slices of {volume.path}"
        )
    labelled = {z for name in data.structures for z in volume.labelled_slices(name)}
    return split_slices(sorted(labelled), data)


def other_volumes(volume: Volume, config: ExperimentConfig) -> list[tuple[Volume, Split]]:
    """The further volumes of a configuration and the slices of theirs that train.

    Raises:
      InputError: a volume that is not there or does not go with the first one.
    """
    data = dataclasses.replace(config.data, val_slices=(), num_val_slices=0)
    plain = dataclasses.replace(config, data=data)
    others = [open_volume(path) for path in data.other_volumes]
    for other in others:
        _check_alike(volume, other)
    held_out = find_split(volume, config).val
    return [
        (other, _without_held_out(volume, other, find_split(other, plain), held_out))
        for other in others
    ]


def _without_held_out(
    volume: Volume, other: Volume, split: Split, held_out: Sequence[int]
) -> Split:
    """Leaves slices out of a copy's that are held out for validation in the first volume."""
    found = lineage.relation(lineage.identity(volume), lineage.identity(other))
    if found is None or not set(split.train) & set(held_out):
        return split
    if not found.same:
        logging.warning(
            "%s may show the images of %s (%s): then the held-out slices %s are trained on, and "
            "the validation scores are too good",
            other.path,
            volume.path,
            found.text,
            sorted(set(split.train) & set(held_out)),
        )
        return split
    train = tuple(z for z in split.train if z not in held_out)
    logging.warning(
        "%s shows the images of %s (%s): the slices %s are held out there and do not train here",
        other.path,
        volume.path,
        found.text,
        sorted(set(split.train) & set(held_out)),
    )
    if not train:
        raise InputError(
            f"--config.data.other_volumes: {other.path} shows the images of {volume.path} and has "
            "no labelled slice that is not held out there; leave it out"
        )
    return Split(train=train, val=())


# Pixels of volumes that are trained on together may differ in size by this factor.
_ALIKE = 1.5


def _check_alike(volume: Volume, other: Volume) -> None:
    of = "--config.data.other_volumes: "
    if volume.downsample != other.downsample:
        raise InputError(
            f"{of}{other.path} has a training scale downsampled by {other.downsample}, "
            f"{volume.path} {volume.downsample}"
        )
    ratio = other.voxel_size[1] / volume.voxel_size[1]
    if not 1 / _ALIKE <= ratio <= _ALIKE:
        raise InputError(
            f"{of}{other.path} has pixels of {other.voxel_size[1]:g} nm, {volume.path} of "
            f"{volume.voxel_size[1]:g} nm; convert them to like sizes"
        )


def z_range(volume: Volume, config: ExperimentConfig) -> tuple[int, int]:
    """First slice and one past the last that training may see."""
    low, high = config.data.z_range
    return (low, high) if high else (0, volume.shape[0])


def unlabelled_slices(volume: Volume, config: ExperimentConfig, split: Split) -> list[int]:
    """Every slice in range that neither trains with its label nor is held out.

    Labelled slices that were left out (`--config.data.num_train_slices`) are among them, without
    their labels: they are what is to be segmented.

    Raises:
      InputError: none is left.
    """
    taken = {*split.train, *split.val}
    slices = [z for z in range(*z_range(volume, config)) if z not in taken]
    if not slices:
        raise InputError(
            f"{volume.path} has no unlabelled slice in --config.data.z_range for "
            f"--config.cps.method={config.cps.method}; use --config.cps.method=supervised, or "
            "leave labelled slices out with --config.data.num_train_slices"
        )
    return slices


def _say_seen(volume: Volume, config: ExperimentConfig, slices: Sequence[int]) -> None:
    labelled = {z for name in config.data.structures for z in volume.labelled_slices(name)}
    logging.info(
        "%s: %d slices are seen as images without labels, %d of them labelled slices that are left "
        "out: scored later on, they are no unseen ones; --config.data.z_range holds images out",
        volume.path,
        len(slices),
        len(labelled.intersection(slices)),
    )


def memory_budget(config: ExperimentConfig) -> int:
    """Bytes of slices that may be held on the device."""
    given = config.data.memory_budget_gib
    return int(given * GIB) if given else int(device_memory() * SLICE_SHARE)


def make_batches(
    volume: Volume,
    config: ExperimentConfig,
    split: Split,
    placement: Placement = ONE_DEVICE,
    others: Sequence[tuple[Volume, Split]] = (),
) -> Batches:
    """The batches of a run: labelled crops, and unlabelled ones for a pair of networks.

    Slices are held on the device if they fit the budget, labelled ones first, and are read from
    disk as the run goes otherwise, as they are with `exact_offsets`; the crops are the same.
    Several devices hold all slices each and get a part of every batch. `others` are more volumes,
    from each of which come as many crops.

    Raises:
      InputError: slices or labels that are not there, or damaged.
    """
    budget, kinds = memory_budget(config), 2 if is_pair(config) else 1
    places = [(volume, split), *others]
    crops = config.train.batch_size // kinds // len(places)
    # The first volume's crops do not depend on whether there are more.
    parts = [Part(crops, config.train.seed + n * VOLUME_SEED) for n in range(len(places))]
    labelled, unlabelled = [], []
    for (each, chosen), part in zip(places, parts, strict=True):
        source = _labelled_source(each, config, chosen.train, placement, budget, part)
        if not source.streamed:
            budget -= _bytes(each, config, chosen.train, len(config.data.structures))
        labelled.append(source)
    for (each, chosen), part in zip(places, parts, strict=True):
        if kinds == 2:
            slices = unlabelled_slices(each, config, chosen)
            _say_seen(each, config, slices)
            source = _unlabelled_source(each, config, slices, placement, budget, part)
            if not source.streamed:
                budget -= _bytes(each, config, slices, 0)
            unlabelled.append(source)
    found = [sources for sources in (labelled, unlabelled) if sources]
    return Batches([each[0] if len(each) == 1 else Joined(each) for each in found])


def _bytes(volume: Volume, config: ExperimentConfig, slices: Sequence[int], structures: int) -> int:
    return planes_bytes(volume, len(slices), structures, crop_size=config.data.crop_size)


def _fits(
    volume: Volume, config: ExperimentConfig, slices: Sequence[int], structures: int, budget: int
) -> bool:
    """Whether slices are held on the device; says so."""
    size = _bytes(volume, config, slices, structures)
    what = f"{len(slices)} {'labelled' if structures else 'unlabelled'} slices"
    if config.data.exact_offsets:
        logging.info("%s are read from full resolution as training goes", what)
        return False
    if size > budget:
        logging.info(
            "%s take %s, more than the %s there are for them "
            "(--config.data.memory_budget_gib): crops are read as training goes",
            what,
            amount(size),
            amount(budget),
        )
        return False
    logging.info("%s are held on the device, %s", what, amount(size))
    return True


def _reader(
    volume: Volume, config: ExperimentConfig, structures: Sequence[str], slices: Sequence[int]
) -> WindowReader:
    return WindowReader(
        volume,
        structures,
        slices,
        crop_size=config.data.crop_size,
        exact_offsets=config.data.exact_offsets,
        cache_bytes=int(config.data.cache_gib * GIB),
    )


def _labelled_source(
    volume: Volume,
    config: ExperimentConfig,
    slices: Sequence[int],
    placement: Placement,
    budget: int,
    part: Part,
) -> Source:
    """Crops that hold the structures."""
    data, options = config.data, config.train

    def sampler(labels: Iterable[np.ndarray], window: int) -> CropSampler:
        return CropSampler(
            labels,
            tuple(data.structures),
            crop_size=window,
            batch_size=part.crops,
            empty_probability=data.empty_crop_probability,
            seed=part.seed,
        )

    if _fits(volume, config, slices, len(data.structures), budget):
        planes = input_pipeline.load_slices(volume, data.structures, slices)
        planes = input_pipeline.pad_to_crop(planes, data.crop_size)
        return Resident(planes, sampler(planes.label, data.crop_size), placement)
    reader = _reader(volume, config, data.structures, slices)
    crops = sampler(reader.label_planes(), reader.window)
    return Streamed(reader, crops, placement, steps=options.steps)


def _unlabelled_source(
    volume: Volume,
    config: ExperimentConfig,
    slices: Sequence[int],
    placement: Placement,
    budget: int,
    part: Part,
) -> Source:
    """Crops from anywhere, half a batch a step, that visit the slices evenly."""
    data, options = config.data, config.train

    def sampler(size: Sequence[int], window: int) -> EvenSampler:
        return EvenSampler(
            len(slices),
            size,
            crop_size=window,
            batch_size=part.crops,
            seed=part.seed,
        )

    if _fits(volume, config, slices, 0, budget):
        planes = input_pipeline.load_unlabelled(volume, slices)
        planes = input_pipeline.pad_to_crop(planes, data.crop_size)
        return Resident(planes, sampler(planes.image.shape[1:], data.crop_size), placement)
    reader = _reader(volume, config, (), slices)
    return Streamed(reader, sampler(reader.size, reader.window), placement, steps=options.steps)
