"""What is reported of nuclei and nucleoli: records, CSV files and a table."""

import csv
import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vemseg_jax.eval.report import number, render_table


@dataclasses.dataclass(frozen=True)
class Body:
    """One object, nucleus or nucleolus.

    Attributes:
      id: from 1, in order of the bounding boxes.
      voxels: at the measured level.
      volume_um3, surface_um2: µm³ and µm²; where the volume cuts the object, the cut counts.
      sphericity: surface of a ball of this volume over the surface; 1 for a ball.
      centroid_um: zyx, µm; the centre of the first voxel at full resolution is 0.
      low, high: bounding box at full resolution, voxels zyx, `high` not included.
      touches_border: it reaches the edge of what was measured, and may go on beyond.
    """

    id: int
    voxels: int
    volume_um3: float
    surface_um2: float
    sphericity: float
    centroid_um: tuple[float, float, float]
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    touches_border: bool


@dataclasses.dataclass(frozen=True)
class Nucleolus:
    """A nucleolus: its body, its nucleus (None: outside) and the share of its voxels in there."""

    body: Body
    nucleus: int | None
    inside: float


@dataclasses.dataclass(frozen=True)
class Nucleus:
    """A nucleus: its body and its nucleoli (None: there was no label of nucleoli)."""

    body: Body
    nucleoli: tuple[Nucleolus, ...] | None

    @property
    def nucleoli_volume_um3(self) -> float:
        """µm³ of its nucleoli together."""
        return sum(one.body.volume_um3 for one in self.nucleoli or ())


def sphericity(volume: float, surface: float) -> float:
    """pi^(1/3) (6 V)^(2/3) / S (Wadell 1935, The Journal of Geology 43:250-280).

    Digitised bodies of few voxels can come out a little above 1.
    """
    return math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface


def _rounded(value: float) -> str:
    return f"{value:.6g}"


def _body_cells(body: Body) -> dict[str, Any]:
    z, y, x = (_rounded(c) for c in body.centroid_um)
    cells: dict[str, Any] = {
        "volume_um3": _rounded(body.volume_um3),
        "surface_um2": _rounded(body.surface_um2),
        "sphericity": f"{body.sphericity:.4f}",
        "x_um": x,
        "y_um": y,
        "z_um": z,
        "touches_border": str(body.touches_border).lower(),
    }
    box: dict[str, int] = {}
    for axis, low, high in zip("zyx", body.low, body.high, strict=True):
        box |= {f"{axis}_start": low, f"{axis}_stop": high}
    return cells | box | {"voxels": body.voxels}


def _nucleus_cells(nucleus: Nucleus) -> dict[str, Any]:
    found = nucleus.nucleoli
    volume = nucleus.nucleoli_volume_um3
    body = _body_cells(nucleus.body)
    head = {"nucleus": nucleus.body.id}
    shape = {k: body.pop(k) for k in ("volume_um3", "surface_um2", "sphericity")}
    counts = {
        "nucleoli": "" if found is None else len(found),
        "nucleoli_volume_um3": "" if found is None else _rounded(volume),
        "nucleoli_to_nucleus": "" if found is None else f"{volume / nucleus.body.volume_um3:.5f}",
    }
    return head | shape | counts | body


def _nucleolus_cells(nucleolus: Nucleolus) -> dict[str, Any]:
    head = {
        "nucleolus": nucleolus.body.id,
        "nucleus": "" if nucleolus.nucleus is None else nucleolus.nucleus,
        "outside": str(nucleolus.nucleus is None).lower(),
        "share_in_nucleus": f"{nucleolus.inside:.4f}",
    }
    return head | _body_cells(nucleolus.body)


# Stands for the columns where there is nothing to report.
_NO_BODY = Body(1, 1, 1.0, 1.0, 1.0, (0.0, 0.0, 0.0), (0, 0, 0), (1, 1, 1), True)


def write_nuclei(path: Path, nuclei: Sequence[Nucleus]) -> None:
    """One line a nucleus; columns of nucleoli are empty where there was no label of them."""
    columns = list(_nucleus_cells(Nucleus(_NO_BODY, None)))
    _write(path, columns, [_nucleus_cells(one) for one in nuclei])


def write_nucleoli(path: Path, nucleoli: Sequence[Nucleolus]) -> None:
    """One line a nucleolus; `nucleus` is empty for those outside."""
    columns = list(_nucleolus_cells(Nucleolus(_NO_BODY, None, 0.0)))
    _write(path, columns, [_nucleolus_cells(one) for one in nucleoli])


def _write(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def totals(nuclei: Sequence[Nucleus], nucleoli: Sequence[Nucleolus] | None) -> dict[str, Any]:
    """Numbers of the whole volume, as JSON values; means are over nuclei that are not cut."""
    whole = [one for one in nuclei if not one.body.touches_border]
    result: dict[str, Any] = {
        "nuclei": len(nuclei),
        "nuclei_whole": len(whole),
        "nuclei_volume_um3": float(np.sum([one.body.volume_um3 for one in nuclei])),
        "whole_nuclei": _averages(whole),
    }
    if nucleoli is not None:
        result["nucleoli"] = len(nucleoli)
        result["nucleoli_outside"] = sum(one.nucleus is None for one in nucleoli)
        result["nucleoli_volume_um3"] = float(np.sum([n.body.volume_um3 for n in nucleoli]))
    return result


def _averages(nuclei: Sequence[Nucleus]) -> dict[str, float] | None:
    if not nuclei:
        return None
    values = {
        "volume_um3": [one.body.volume_um3 for one in nuclei],
        "surface_um2": [one.body.surface_um2 for one in nuclei],
        "sphericity": [one.body.sphericity for one in nuclei],
    }
    if nuclei[0].nucleoli is not None:
        values["nucleoli"] = [float(len(one.nucleoli or ())) for one in nuclei]
        values["nucleoli_to_nucleus"] = [
            one.nucleoli_volume_um3 / one.body.volume_um3 for one in nuclei
        ]
    return {f"mean_{name}": statistics.fmean(each) for name, each in values.items()} | {
        f"sd_{name}": statistics.stdev(each) for name, each in values.items() if len(each) > 1
    }


def table_text(nuclei: Sequence[Nucleus], *, most: int = 30) -> str:
    """The nuclei as a table, the first `most` of them."""
    rows = []
    for one in nuclei[:most]:
        body, found = one.body, one.nucleoli
        ratio = one.nucleoli_volume_um3 / body.volume_um3
        rows.append(
            {
                "nucleus": str(body.id),
                "border": "touches" if body.touches_border else "",
                "volume µm³": number(body.volume_um3, 2),
                "surface µm²": number(body.surface_um2, 2),
                "sphericity": number(body.sphericity, 3),
                "nucleoli": "-" if found is None else str(len(found)),
                "nucleoli µm³": "-" if found is None else number(one.nucleoli_volume_um3, 2),
                "ratio": "-" if found is None else number(ratio, 4),
            }
        )
    more = f"\n... and {len(nuclei) - most} more in nuclei.csv" if len(nuclei) > most else ""
    return render_table(rows) + more
