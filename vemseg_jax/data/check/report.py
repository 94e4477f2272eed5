"""What a check of a volume found: facts, findings, and how they are printed."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vemseg_jax.config import plain
from vemseg_jax.data.store.atomic import write_json
from vemseg_jax.data.store.slice_list import PRINTED_RUNS, slice_list
from vemseg_jax.memory import SLICE_SHARE
from vemseg_jax.units import amount

ERROR, WARNING = "error", "warning"
PERCENTILES = (1, 25, 50, 75, 99)
PRINTED_FILES = 6


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something a user should know and can act on.

    Attributes:
      severity: "error" where training would fail or learn something wrong, else "warning".
      topic: a stable name for scripts.
      message: what was found.
      action: what to do about it.
      slices: the slices concerned, z.
    """

    severity: str
    topic: str
    message: str
    action: str
    slices: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}; {self.action} [{self.topic}]"


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """Grey values of the slices; lengths on the 0-1 scale (divided by the type's maximum).

    Attributes:
      checked: slices that were read at training scale.
      mean_range, std_range: least and greatest of all slices, as recorded by the conversion.
      drift: greatest less least of the smoothed means, in standard deviations of a slice.
      black, white: share of the pixels read that have the least and the greatest value there is.
      levels: those values, as they are stored.
      labelled_distance: Kolmogorov-Smirnov distance between the grey values of labelled and of
        unlabelled slices; None where there are too few of either.
      percentiles: of `PERCENTILES`, one row a slice of `checked`.
    """

    checked: tuple[int, ...]
    mean_range: tuple[float, float]
    std_range: tuple[float, float]
    drift: float | None
    black: float
    white: float
    levels: tuple[int, int]
    labelled_distance: float | None
    percentiles: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class LabelFacts:
    """One structure on its labelled slices in range, at training scale.

    Attributes:
      name, kind, source: of the label image.
      slices: labelled slices, ascending.
      files: label file of a slice (z as text), where the conversion recorded it.
      pixels: pixels of the structure, one number a slice.
      shares: those of all pixels that are labelled and not ignored.
      fit: correlation of the labels with what grey values foretell (see `check.fit`); None where
        there are too few slices to tell.
    """

    name: str
    kind: str
    source: str
    slices: tuple[int, ...]
    files: dict[str, str]
    pixels: tuple[int, ...]
    shares: tuple[float, ...]
    fit: float | None = None

    @property
    def empty(self) -> tuple[int, ...]:
        """Labelled slices without a pixel of the structure."""
        return tuple(z for z, n in zip(self.slices, self.pixels, strict=True) if n == 0)


@dataclasses.dataclass(frozen=True)
class MemoryFacts:
    """Bytes: of the slices to train on, and of the device.

    Attributes:
      device: its name.
      available: free for this program.
      supervised, semi_supervised: what the slices of such a training take.
      is_host: the device is the CPU, its memory that of the machine.
    """

    device: str
    available: int
    supervised: int
    semi_supervised: int
    is_host: bool = True


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything `check_volume` found; lengths in nm, shapes and voxel sizes zyx.

    Attributes:
      z_range: first slice and one past the last that were checked.
      crop_size: side of a crop that training would use, pixels at training scale.
      crop_from: whose crop that is.
      ignored: share of the labelled slices' pixels that the ignore mask leaves out; None without.
      others: label images that are not checked, such as predictions.
    """

    path: str
    source: str
    shape: tuple[int, int, int]
    dtype: str
    axes: str
    axes_from: str
    voxel_size: tuple[float, float, float]
    voxel_size_from: str
    downsample: int
    training_shape: tuple[int, int, int]
    z_range: tuple[int, int]
    crop_size: int
    images: ImageFacts
    labels: tuple[LabelFacts, ...]
    ignored: float | None
    others: tuple[str, ...]
    memory: MemoryFacts
    findings: tuple[Finding, ...]
    crop_from: str = ""

    def count(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(f.severity == severity for f in self.findings)

    def passes(self, *, strict: bool) -> bool:
        """Whether nothing stands against training; with `strict`, no warning either."""
        return not self.count(ERROR) and not (strict and self.count(WARNING))


def lengths(sizes: Sequence[float]) -> str:
    """`50, 4, 4`."""
    return ", ".join(f"{size:.6g}" for size in sizes)


def percent(share: float) -> str:
    """`3.25 %`, three figures."""
    return f"{100 * share:.3g} %"


def _image_lines(report: Report) -> list[str]:
    z, h, w = report.shape
    _, th, tw = report.training_shape
    images, step = report.images, [s * report.downsample for s in report.voxel_size[1:]]
    lines = [
        f"volume      {report.path}, from {report.source or 'an unknown source'}",
        f"images      {z} slices of {h} x {w}, {report.dtype}",
        f"axes        {report.axes} ({report.axes_from or 'not recorded'})",
        f"voxel size  {lengths(report.voxel_size)} nm, z,y,x (from"
        f" {report.voxel_size_from or 'an unrecorded source'}); slices lie"
        f" {report.voxel_size[0] / report.voxel_size[2]:.3g} pixels apart",
        f"training    slices of {th} x {tw} pixels of {step[0]:.6g} x {step[1]:.6g} nm, crops of"
        f" {report.crop_size}{f' ({report.crop_from})' if report.crop_from else ''}",
    ]
    if report.z_range != (0, z):
        lines.append(f"checked     slices {report.z_range[0]} to {report.z_range[1] - 1}")
    low, high = images.mean_range
    text = f"mean {low:.3g} to {high:.3g}, std {images.std_range[0]:.3g} to"
    text += f" {images.std_range[1]:.3g} of all slices (0-1 scale)"
    if images.drift is not None:
        text += f"; the mean drifts by {images.drift:.2f} std"
    lines.append(f"grey values {text}")
    text = f"{len(images.checked)} slices read: values {images.levels[0]} to {images.levels[1]},"
    text += f" {percent(images.black)} black, {percent(images.white)} white"
    if images.labelled_distance is not None:
        text += f"; labelled and other slices differ by {images.labelled_distance:.3f}"
        text += " (Kolmogorov-Smirnov, 0 to 1)"
    return [*lines, f"            {text}"]


def _label_lines(label: LabelFacts) -> list[str]:
    head = f"label       {label.name} ({label.kind}): {len(label.slices)} labelled slices"
    lines = [f"{head}, {slice_list(label.slices)}" if label.slices else head]
    if label.source:
        lines.append(f"            from {label.source}")
    if label.files:
        pairs = [f"{z} {name}" for z, name in label.files.items()]
        if len(pairs) > PRINTED_FILES:
            half = PRINTED_FILES // 2
            pairs = [*pairs[:half], "…", *pairs[-half:]]
        lines.append(f"            slice and file: {', '.join(pairs)}")
    if label.shares:
        low, middle, high = np.percentile(label.shares, [0, 50, 100])
        text = f"{percent(low)} least, {percent(middle)} median, {percent(high)} greatest"
        lines.append(f"            share of a slice: {text}")
        if len(label.slices) <= 2 * PRINTED_RUNS:
            shares = zip(label.slices, label.shares, strict=True)
            each = ", ".join(f"{z}: {percent(share)}" for z, share in shares)
            lines.append(f"            slice by slice: {each}")
    if label.empty:
        lines.append(f"            empty labelled slices: {slice_list(label.empty)}")
    return lines


def memory_lines(memory: MemoryFacts) -> list[str]:
    """What there is, and what the slices of a training take of it."""
    room = int(SLICE_SHARE * memory.available)
    where = "in this machine's RAM" if memory.is_host else f"on the GPU ({memory.device})"
    lines = [
        f"memory      {amount(memory.available)} are free {where}; training keeps slices in up to"
        f" a quarter of it, {amount(room)}",
        "            (the rest is for network and crops). What the slices take:",
    ]
    for what, size in (
        ("one network, labelled slices", memory.supervised),
        ("two networks that teach each other, all slices", memory.semi_supervised),
    ):
        kept = "fits" if size <= room else "more than that: crops read as training goes"
        lines.append(f"            {what}: {amount(size)}, {kept}")
    return lines


def report_text(report: Report) -> str:
    """The report for people, findings last."""
    lines = _image_lines(report)
    if not report.labels:
        lines.append("label       none")
    for label in report.labels:
        lines += _label_lines(label)
    if report.ignored is not None:
        lines.append(f"ignore      {percent(report.ignored)} of the pixels of labelled slices")
    if report.others:
        lines.append(f"not checked labels {', '.join(report.others)}")
    lines += memory_lines(report.memory)
    lines += [str(finding) for finding in report.findings]
    errors, warnings = report.count(ERROR), report.count(WARNING)
    lines.append(f"checked: {_number(errors, 'error')}, {_number(warnings, 'warning')}")
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def report_record(report: Report) -> dict[str, Any]:
    """The report as JSON values, with the numbers of errors and warnings."""
    record = plain(report)
    record["errors"], record["warnings"] = report.count(ERROR), report.count(WARNING)
    return json.loads(json.dumps(record))


def write_report(path: Path, report: Report) -> None:
    """Writes `report_record` to a JSON file."""
    write_json(path, report_record(report))
