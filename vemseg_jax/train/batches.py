"""Which slices a run trains on, and whether they live on the device or are read as it goes."""

from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.data import input_pipeline
from vemseg_jax.data.sampling import CropSampler, EvenSampler
from vemseg_jax.data.sources import Batches, Resident, Source, Streamed
from vemseg_jax.data.split import Split, split_slices
from vemseg_jax.data.volume import Volume
from vemseg_jax.data.windows import WindowReader, planes_bytes
from vemseg_jax.errors import InputError
from vemseg_jax.memory import SLICE_SHARE, device_memory

GIB = 2**30


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


def memory_budget(config: ExperimentConfig) -> int:
    """Bytes of slices that may be held on the device."""
    given = config.data.memory_budget_gib
    return int(given * GIB) if given else int(device_memory() * SLICE_SHARE)


def make_batches(volume: Volume, config: ExperimentConfig, split: Split) -> Batches:
    """The batches of a run: labelled crops, and unlabelled ones for a pair of networks.

    Slices are held on the device if they fit the budget, labelled ones first, and are read from
    disk as the run goes otherwise, as they are with `exact_offsets`; the crops are the same.

    Raises:
      InputError: slices or labels that are not there, or damaged.
    """
    budget, share = memory_budget(config), 2 if is_pair(config) else 1
    sources = [_labelled_source(volume, config, split.train, budget, share)]
    if is_pair(config):
        left = budget
        if not sources[0].streamed:
            left -= _bytes(volume, config, split.train, len(config.data.structures))
        slices = unlabelled_slices(volume, config, split)
        sources.append(_unlabelled_source(volume, config, slices, left))
    return Batches(sources)


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
            "%s take %.2f GiB, more than the %.2f GiB there are for them "
            "(--config.data.memory_budget_gib): crops are read as training goes",
            what,
            size / GIB,
            budget / GIB,
        )
        return False
    logging.info("%s are held on the device, %.3g MiB", what, size / 2**20)
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
    volume: Volume, config: ExperimentConfig, slices: Sequence[int], budget: int, share: int
) -> Source:
    """Crops that hold the structures, `batch_size / share` of them a step."""
    data, options = config.data, config.train

    def sampler(labels: Iterable[np.ndarray], window: int) -> CropSampler:
        return CropSampler(
            labels,
            tuple(data.structures),
            crop_size=window,
            batch_size=options.batch_size // share,
            empty_probability=data.empty_crop_probability,
            seed=options.seed,
        )

    if _fits(volume, config, slices, len(data.structures), budget):
        planes = input_pipeline.load_slices(volume, data.structures, slices)
        planes = input_pipeline.pad_to_crop(planes, data.crop_size)
        return Resident(planes, sampler(planes.label, data.crop_size))
    reader = _reader(volume, config, data.structures, slices)
    return Streamed(reader, sampler(reader.label_planes(), reader.window), steps=options.steps)


def _unlabelled_source(
    volume: Volume, config: ExperimentConfig, slices: Sequence[int], budget: int
) -> Source:
    """Crops from anywhere, half a batch a step, that visit the slices evenly."""
    data, options = config.data, config.train

    def sampler(size: Sequence[int], window: int) -> EvenSampler:
        return EvenSampler(
            len(slices),
            size,
            crop_size=window,
            batch_size=options.batch_size // 2,
            seed=options.seed,
        )

    if _fits(volume, config, slices, 0, budget):
        planes = input_pipeline.load_unlabelled(volume, slices)
        planes = input_pipeline.pad_to_crop(planes, data.crop_size)
        return Resident(planes, sampler(planes.image.shape[1:], data.crop_size))
    reader = _reader(volume, config, (), slices)
    return Streamed(reader, sampler(reader.size, reader.window), steps=options.steps)
