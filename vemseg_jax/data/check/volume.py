"""Is a volume fit to be trained on? Read before any compute."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from vemseg_jax.data.check.fit import check_fit
from vemseg_jax.data.check.images import check_grey_values, read_plane
from vemseg_jax.data.check.labels import check_label, check_together, label_facts
from vemseg_jax.data.check.report import (
    ERROR,
    WARNING,
    Finding,
    LabelFacts,
    MemoryFacts,
    Report,
    lengths,
)
from vemseg_jax.data.check.scale import check_scale
from vemseg_jax.data.check.scan import Scans, scan_labels
from vemseg_jax.data.convert.pairing import describe_gaps
from vemseg_jax.data.convert.pairing_fit import MOST_SLICES
from vemseg_jax.data.crops.disk_reader import planes_bytes
from vemseg_jax.data.crops.split import evenly_spaced
from vemseg_jax.data.store.label_writer import ANNOTATION
from vemseg_jax.data.store.ome import read_group
from vemseg_jax.data.store.volume import IGNORE, TRAINING, Volume, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.memory import device_memory

SAMPLED_SLICES = 64
# Pixels of 0.5 nm to 1 um, slices 40 pixels apart at most and half a pixel at least: what lies
# beyond is a wrong unit or order more likely than a microscope.
PIXEL_NM = (0.5, 1000.0)
ANISOTROPY = (0.5, 40.0)
SQUARE_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
      structures: label images; empty takes all annotations.
      z_range: first slice and one past the last; None for all.
      crop_size: side of a training crop, pixels at training scale.
      crop_from: whose crop that is, for the report.
      every: reads every so many-th slice's image; None reads up to `SAMPLED_SLICES` labelled and
        as many of all slices, evenly spaced.
      memory: bytes of the device; None asks it.
    """

    structures: Sequence[str] = ()
    z_range: tuple[int, int] | None = None
    crop_size: int = 512
    crop_from: str = ""
    every: int | None = None
    memory: int | None = None


def check_volume(path: str | Path, options: CheckOptions) -> Report:
    """Reads a volume and says what is there and what stands against training on it.

    All labels in range are read at training scale, images by sample; of the others the
    statistics recorded by the conversion are used, and their files looked for.

    Raises:
      InputError: no volume, an unknown structure, or a range beyond the volume.
    """
    volume = open_volume(path)
    low, high = _z_range(volume, options)
    slices = range(low, high)
    names = _structures(volume, options)
    listed = {n: [z for z in volume.labelled_slices(n) if low <= z < high] for n in names}
    labelled = set().union(*listed.values())
    keep = {n: set(_spread(zs, MOST_SLICES)) for n, zs in listed.items()}
    scans = scan_labels(volume, listed, keep)
    sample = sorted({*_sampled(slices, options), *_sampled(sorted(labelled), options)})
    images, image_findings = check_grey_values(volume, slices, sample, labelled)
    memory = _memory(volume, len(slices), labelled, names, options)
    findings = [*_geometry(volume, slices, options), *image_findings]
    if not names:
        text = "the volume has no annotation"
        action = "convert it again with --labels, or add labels with create_label"
        findings.append(Finding(ERROR, "no_labels", text, action))
    labels, label_findings = _labels(volume, scans, listed, (low, high), set(images.checked))
    findings += label_findings
    info = read_group(volume.path)["vemseg"]
    return Report(
        path=str(volume.path),
        source=volume.source,
        shape=volume.shape,
        dtype=volume.dtype.name,
        axes=str(info.get("axes", "zyx")),
        axes_from=str(info.get("axes_from", "")),
        voxel_size=volume.voxel_size,
        voxel_size_from=str(info.get("voxel_size_from", "")),
        downsample=volume.downsample,
        training_shape=(volume.shape[0], *volume.plane_shape(TRAINING)),
        z_range=(low, high),
        crop_size=options.crop_size,
        crop_from=options.crop_from,
        images=images,
        labels=labels,
        ignored=scans.ignored / scans.pixels if scans.pixels else None,
        others=tuple(n for n in volume.label_names if n not in (*names, IGNORE)),
        memory=memory,
        findings=tuple(sorted(findings, key=lambda f: f.severity != ERROR)),
    )


def _z_range(volume: Volume, options: CheckOptions) -> tuple[int, int]:
    depth = volume.shape[0]
    low, high = options.z_range or (0, depth)
    if not 0 <= low < high <= depth:
        raise InputError(
            f"--z_range={low}:{high}: must lie within the {depth} slices of {volume.path}, first"
            " before one past the last"
        )
    return low, high


def _structures(volume: Volume, options: CheckOptions) -> list[str]:
    if options.structures:
        return list(dict.fromkeys(options.structures))
    names = volume.label_names
    return [n for n in names if volume.label_info(n).get("kind") == ANNOTATION]


def _spread(items: Sequence[int], count: int) -> Sequence[int]:
    return evenly_spaced(items, count) if len(items) > count else items


def _sampled(slices: Sequence[int], options: CheckOptions) -> Sequence[int]:
    if options.every:
        return slices[:: options.every]
    return _spread(slices, SAMPLED_SLICES)


def _labels(
    volume: Volume,
    scans: Scans,
    listed: Mapping[str, Sequence[int]],
    z_range: tuple[int, int],
    sound: set[int],
) -> tuple[tuple[LabelFacts, ...], list[Finding]]:
    """Facts and findings of all structures; `sound` are slices whose images can be read."""
    facts, findings = [], []
    for name, scan in scans.by_name.items():
        # Images that were found sound when they were sampled; damage is told of there.
        damaged: list[int] = []
        planes = {z: read_plane(volume.image(TRAINING), z, damaged) for z in scan.masks}
        images = {z: p for z, p in planes.items() if p is not None and (z in sound or p.any())}
        fit, fit_findings = check_fit(name, images, scan.masks)
        facts.append(label_facts(volume, name, scan, fit))
        findings += check_label(volume, name, scan, listed=listed[name], z_range=z_range)
        findings += fit_findings
    return tuple(facts), [*findings, *check_together(volume, scans)]


def _geometry(volume: Volume, slices: range, options: CheckOptions) -> list[Finding]:
    """Findings on voxel size, slice names and the extent of slices."""
    findings = []
    dz, dy, dx = volume.voxel_size
    size, again = lengths(volume.voxel_size), "convert again with --voxel_size in nm as z,y,x"
    low, high = PIXEL_NM
    if not low <= min(dy, dx) <= max(dy, dx) <= high:
        text = f"voxels of {size} nm (z,y,x) are unusual for an electron microscope"
        findings.append(Finding(WARNING, "voxel_size", text, f"if the unit is wrong, {again}"))
    elif not ANISOTROPY[0] <= dz / min(dy, dx) <= ANISOTROPY[1]:
        text = f"voxels of {size} nm (z,y,x) are unusually flat or long"
        findings.append(Finding(WARNING, "voxel_size", text, f"if the order is wrong, {again}"))
    elif abs(dy - dx) > SQUARE_TOLERANCE * max(dy, dx):
        text = f"pixels are not square: voxels of {size} nm (z,y,x)"
        findings.append(Finding(WARNING, "voxel_size", text, f"if the order is wrong, {again}"))
    gaps = describe_gaps(volume.slice_names, slices)
    if gaps:
        action = "add the missing slices or correct the order, and convert again"
        findings.append(Finding(WARNING, "slice_names", gaps, action))
    return [*findings, *check_scale(volume, options.crop_size)]


def _memory(
    volume: Volume, depth: int, labelled: set[int], names: Sequence[str], options: CheckOptions
) -> MemoryFacts:
    available = device_memory() if options.memory is None else options.memory
    supervised = planes_bytes(volume, len(labelled), len(names), crop_size=options.crop_size)
    others = planes_bytes(volume, depth - len(labelled), 0, crop_size=options.crop_size)
    return MemoryFacts(
        device=jax.local_devices()[0].device_kind,
        is_host=jax.default_backend() == "cpu",
        available=available,
        supervised=supervised,
        semi_supervised=supervised + others,
    )
