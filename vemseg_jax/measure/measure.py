"""Measures the nuclei and nucleoli of a volume and writes a folder of results."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import vemseg_jax
from vemseg_jax.data.store.atomic import AtomicDirectory
from vemseg_jax.data.store.volume import Volume, open_volume
from vemseg_jax.eval.folder import check_output
from vemseg_jax.measure.options import FLAG, Options
from vemseg_jax.measure.reading import Found, Readings
from vemseg_jax.measure.rendering import MOST_OBJECTS, render
from vemseg_jax.measure.results import (
    Nucleolus,
    Nucleus,
    table_text,
    totals,
    write_nuclei,
    write_nucleoli,
)
from vemseg_jax.measure.selection import Selection, select

FORMAT = "vemseg measurement 1"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What `measure` found and where it wrote it; `text` is the table with its notes."""

    output: Path
    nuclei: tuple[Nucleus, ...]
    nucleoli: tuple[Nucleolus, ...] | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    text: str


def measure(
    volume_path: str | os.PathLike[str],
    options: Options,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Measurement:
    """Measures the objects of one or two label images, reading them twice, slab by slab.

    The folder: `nuclei.csv`, `nucleoli.csv`, `summary.json`, `rendering.png` and, if asked for,
    `meshes/nucleus_0001.ply` and so on. It appears whole or not at all.

    Args:
      volume_path: an OME-Zarr volume.
      options: labels and settings.
      output: the folder; by default NAME-measurement beside the volume.
      overwrite: replaces the folder if it holds an earlier measurement.

    Raises:
      InputError: a missing label, slices without a label in between, an output that exists, a
        budget too small for one slice.
    """
    volume = open_volume(volume_path)
    folder = check_output(
        volume, output, overwrite=overwrite, what="measurement", written_as=FORMAT
    )
    selection = select(
        volume,
        nuclei=options.nuclei,
        nucleoli=options.nucleoli,
        level=options.level,
        z_range=options.z_range,
    )
    directory = AtomicDirectory(folder, partial=folder.with_name(folder.name + ".partial"))
    try:
        readings = Readings(volume, selection, options=options, folder=directory.partial)
        found = readings.read()
        notes, warnings = tuple(_notes(selection, options, found)), tuple(_warnings(options, found))
        _write(
            directory.partial,
            volume,
            selection,
            options=options,
            found=found,
            said=(notes, warnings),
        )
    except BaseException:
        directory.abandon()
        raise
    directory.commit()
    table = [table_text(found.nuclei), ""] if found.nuclei else []
    text = "\n".join([*table, *notes, *(f"warning: {warning}" for warning in warnings)])
    return Measurement(folder, found.nuclei, found.nucleoli, notes, warnings, text)


def _notes(selection: Selection, options: Options, found: Found) -> Iterator[str]:
    size = " x ".join(f"{s:g}" for s in selection.voxel_size)
    names = " and ".join(repr(name) for name in selection.names)
    yield (
        f"Measured {names}, slices {selection.z_range[0]}:{selection.z_range[1]} at"
        f" {selection.level} scale, voxels of {size} nm (zyx), connectivity"
        f" {options.connectivity}."
    )
    whole = sum(not one.body.touches_border for one in found.nuclei)
    yield (
        f"Nuclei: {len(found.nuclei)}, of them {whole} whole; the others touch the border and are"
        f" cut. Left out below {options.min_nucleus_um3:g} µm³:"
        f" {found.left_out['nuclei_too_small']}."
    )
    if found.nucleoli is not None:
        outside = (
            f"outside nuclei: {sum(one.nucleus is None for one in found.nucleoli)}"
            if options.outside == FLAG
            else f"left out outside nuclei: {found.left_out['nucleoli_outside']}"
        )
        yield (
            f"Nucleoli: {len(found.nucleoli)}; {outside}. Left out below"
            f" {options.min_nucleolus_um3:g} µm³: {found.left_out['nucleoli_too_small']}."
        )


def _warnings(options: Options, found: Found) -> Iterator[str]:
    if not found.nuclei:
        small = found.left_out["nuclei_too_small"]
        yield f"no nuclei in {options.nuclei!r}" + (
            f" of at least {options.min_nucleus_um3:g} µm³; {small} are smaller, see"
            " --min_nucleus_um3"
            if small
            else "; the label is empty in these slices"
        )
    if found.nucleoli is None:
        return
    outside = found.left_out.get("nucleoli_outside", 0)
    outside += sum(one.nucleus is None for one in found.nucleoli)
    inside = sum(one.nucleus is not None for one in found.nucleoli)
    if found.nuclei and outside > inside:
        yield (
            f"{outside} of {outside + inside} nucleoli are outside nuclei; does"
            f" {options.nuclei!r} leave out what is inside nucleoli, or is {options.nucleoli!r}"
            " another structure?"
        )
    if not outside + inside:
        yield f"no nucleoli in {options.nucleoli!r}" + (
            f" of at least {options.min_nucleolus_um3:g} µm³, see --min_nucleolus_um3"
            if found.left_out["nucleoli_too_small"]
            else "; the label is empty in these slices"
        )


def _write(
    folder: Path,
    volume: Volume,
    selection: Selection,
    *,
    options: Options,
    found: Found,
    said: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    write_nuclei(folder / "nuclei.csv", found.nuclei)
    if found.nucleoli is not None:
        write_nucleoli(folder / "nucleoli.csv", found.nucleoli)
    settings = dataclasses.asdict(options)
    # How much memory there was changes nothing in the result.
    del settings["memory_bytes"], settings["level"], settings["z_range"]
    summary = {
        "format": FORMAT,
        "version": vemseg_jax.__version__,
        "volume": str(volume.path),
        "settings": settings,
        "level": selection.level,
        "z_range": list(selection.z_range),
        "voxel_size_nm": list(selection.voxel_size),
        "found": totals(found.nuclei, found.nucleoli),
        "left_out": found.left_out,
        "notes": list(said[0]),
        "warnings": list(said[1]),
    }
    (folder / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    _draw(folder / "rendering.png", volume, selection, found=found)


def _draw(path: Path, volume: Volume, selection: Selection, *, found: Found) -> None:
    # Voxels reach half their size beyond their centres.
    low, high = (
        selection.micrometres(np.array(corner) - 0.5)[::-1]
        for corner in ((0, 0, 0), selection.shape)
    )
    counts = [f"{len(found.nuclei)} nuclei"]
    if found.nucleoli is not None:
        counts.append(f"{len(found.nucleoli)} nucleoli")
    title = f"{volume.path.name}: {', '.join(counts)}"
    count = len(found.nuclei) + len(found.nucleoli or ())
    note = f"slices {selection.z_range[0]}:{selection.z_range[1]}"
    if len(found.solids) < count:
        note += f", the largest of {count} objects (at most {MOST_OBJECTS})"
    render(path, found.solids, low_um=low, high_um=high, title=title, note=note)
