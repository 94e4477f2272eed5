"""Checks of labels: where they are, how much they hold, what looks wrong with them."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from vemseg_jax.data.check.images import missing_shards
from vemseg_jax.data.check.report import ERROR, WARNING, Finding, LabelFacts, percent
from vemseg_jax.data.check.scan import NUCLEI, NUCLEOLI, LabelScan, Scans
from vemseg_jax.data.convert.empty_slices import EMPTY, NONE, doubtful
from vemseg_jax.data.store.slice_list import slice_list
from vemseg_jax.data.store.volume import FULL, IGNORE, LABELS, TRAINING, Volume, array_path

FEWEST_SLICES = 3
# Pixels of a structure on all labelled slices together, at training scale.
SCARCE_PIXELS = 500
# Slices to which a label may be carried on.
COPIED_ON = 3
FULL_SHARE = 0.98
IGNORED_SHARE = 0.5
OUTSIDE_SHARE = 0.05
# Share of the checked slices that may lie in a row without a label.
LARGEST_GAP = 0.5
# Neighbours from which the share of a slice can be told: so many slices or nm apart, together.
NEIGHBOUR_SLICES, NEIGHBOUR_NM = 4, 400.0
DEVIATION_ROBUST, DEVIATION_RELATIVE, DEVIATION_SHARE = 6.0, 0.6, 0.002
LEAST_TRIPLES = 3


def label_facts(volume: Volume, name: str, scan: LabelScan, fit: float | None) -> LabelFacts:
    """The facts of one structure."""
    info = volume.label_info(name)
    files = info.get("files", {})
    return LabelFacts(
        name=name,
        kind=str(info.get("kind", "unknown")),
        source=str(info.get("source", "")),
        slices=tuple(scan.slices),
        files={str(z): files[str(z)] for z in scan.slices if str(z) in files},
        pixels=tuple(scan.pixels),
        shares=tuple(float(s) for s in scan.shares),
        fit=fit,
    )


def _damage(volume: Volume, name: str, scan: LabelScan, listed: Sequence[int]) -> list[Finding]:
    path = volume.path / LABELS / name
    lost = set(missing_shards(path / array_path(TRAINING, volume.downsample), listed))
    if array_path(FULL, 1) in (array_path(x, volume.downsample) for x in _levels(volume, name)):
        lost |= set(missing_shards(path / array_path(FULL, volume.downsample), listed))
    action = "add the labels again (vemseg-convert) or restore them from a backup"
    findings = []
    if scan.damaged:
        text = f"labels of {name} on slices {slice_list(scan.damaged)} are damaged"
        findings.append(Finding(ERROR, "damaged_labels", text, action, tuple(scan.damaged)))
    gone = sorted(lost | set(scan.blank))
    if gone:
        text = f"labels of {name} on slices {slice_list(gone)} are listed but not in {path}"
        findings.append(Finding(ERROR, "missing_labels", text, action, tuple(gone)))
    return findings


def _levels(volume: Volume, name: str) -> Sequence[str]:
    return volume.label_info(name)["levels"]


def _amount(name: str, scan: LabelScan) -> list[Finding]:
    """Too few slices, too few pixels."""
    if not scan.slices:
        text = f"{name} has no labelled slice in range"
        action = "label slices, or check another range (--z_range) or structure (--structures)"
        return [Finding(ERROR, "no_labels", text, action)]
    total = sum(scan.pixels)
    if total == 0:
        text = f"{name} has no pixel on any of its {len(scan.slices)} labelled slices"
        action = "label slices that show it, and see that --label_values was right"
        return [Finding(ERROR, "absent_structure", text, action, tuple(scan.slices))]
    findings = []
    if len(scan.slices) < FEWEST_SLICES:
        text = f"{name} is labelled on {len(scan.slices)} slices only"
        action = "label 7 or more, evenly spaced along z; one is held out for validation"
        findings.append(Finding(WARNING, "few_labels", text, action, tuple(scan.slices)))
    if total < SCARCE_PIXELS:
        text = f"{name} covers {total} pixels of the training scale on all labelled slices together"
        action = "label slices that show more of it, or convert with --downsample=1"
        findings.append(Finding(WARNING, "scarce_structure", text, action))
    return findings


def _empty(name: str, scan: LabelScan) -> list[Finding]:
    """Slices that count as background though it looks as if nobody had painted them."""
    why = doubtful(scan.content)
    if why is None:
        return []
    empty = scan.content.empty
    text = (
        f"{len(empty)} of {len(scan.slices)} labelled slices show no {name} and count as background"
        f" ({slice_list(empty)}), and {why}"
    )
    action = (
        f"if nobody labelled them, convert again with --unlabelled_slices={name}={EMPTY}; if {name}"
        f" is absent there, with --unlabelled_slices={name}={NONE}"
    )
    return [Finding(WARNING, "empty_slices", text, action, empty)]


def _copies(name: str, scan: LabelScan) -> list[Finding]:
    by_digest: dict[str, list[int]] = {}
    for z, digest in scan.digests.items():
        by_digest.setdefault(digest, []).append(z)
    # Annotators carry a label on to the next slice on purpose.
    same = [zs for zs in by_digest.values() if zs[-1] - zs[0] > COPIED_ON]
    if not same:
        return []
    listed = "; ".join(slice_list(zs) for zs in same[:6])
    more = f" and {len(same) - 6} more groups" if len(same) > 6 else ""
    return [
        Finding(
            WARNING,
            "copied_labels",
            f"labels of {name} are pixel for pixel the same on slices {listed}{more}",
            "see whether a label file was saved under several names",
            tuple(sorted(z for zs in same for z in zs)),
        )
    ]


def _deviations(name: str, scan: LabelScan, dz: float, *, settled: bool) -> list[Finding]:
    """Slices whose share is not that of the labelled slices close by.

    Where it is `settled` that empty slices are background, single slices may stand between them.
    """
    z, share = np.array(scan.slices), scan.shares
    if len(z) < LEAST_TRIPLES + 2:
        return []
    span = z[2:] - z[:-2]
    near = (span <= NEIGHBOUR_SLICES) | (span * dz <= NEIGHBOUR_NM)
    if near.sum() < LEAST_TRIPLES:
        return []
    expected = share[:-2] + (share[2:] - share[:-2]) * (z[1:-1] - z[:-2]) / span
    deviation = np.abs(share[1:-1] - expected)
    limit = max(
        DEVIATION_ROBUST * 1.4826 * float(np.median(deviation[near])),
        DEVIATION_SHARE,
    )
    large = np.maximum(share[1:-1], expected)
    odd = near & (deviation > limit) & (deviation > DEVIATION_RELATIVE * large)
    alone = odd & (share[:-2] == 0) & (share[2:] == 0)
    # Next to a slice that stands out, the expectation itself is wrong.
    peak = deviation == ndimage.maximum_filter1d(deviation * near, 3, mode="nearest")
    others = odd & ~alone & peak & ~_beside(alone)
    findings = []
    if alone.any() and not settled:
        zs = tuple(int(v) for v in z[1:-1][alone])
        text = f"{name} is on slices {slice_list(zs)} but on no labelled slice beside them"
        action = (
            f"if only slices with {name} were annotated, convert with --unlabelled_slices={name}="
            f"{EMPTY}: the others count as background now"
        )
        findings.append(Finding(WARNING, "isolated_labels", text, action, zs))
    if others.any():
        zs = tuple(int(v) for v in z[1:-1][others])
        text = (
            f"the share of {name} on slices {slice_list(zs)} is far from that of their neighbours"
        )
        action = "look at these labels: forgotten or filled regions, or the label of another slice"
        findings.append(Finding(WARNING, "deviating_labels", text, action, zs))
    return findings


def _beside(chosen: np.ndarray) -> np.ndarray:
    near = np.zeros_like(chosen)
    near[1:] |= chosen[:-1]
    near[:-1] |= chosen[1:]
    return near


def _extent(name: str, scan: LabelScan, z_range: tuple[int, int]) -> list[Finding]:
    """Full slices, and long stretches without a label."""
    findings = []
    full = tuple(z for z, s in zip(scan.slices, scan.shares, strict=True) if s >= FULL_SHARE)
    if full:
        text = f"{name} fills slices {slice_list(full)}"
        action = (
            "see whether the label is inverted (--label_values picks the value of the structure)"
        )
        findings.append(Finding(WARNING, "full_labels", text, action, full))
    if len(scan.slices) < FEWEST_SLICES:
        return findings
    low, high = z_range
    edges = [low - 1, *scan.slices, high]
    gaps = [(b - a - 1, a, b) for a, b in itertools.pairwise(edges)]
    length, a, b = max(gaps)
    if length > LARGEST_GAP * (high - low):
        text = f"no label of {name} on slices {a + 1} to {b - 1}"
        text += f", {percent(length / (high - low))} of those checked"
        action = "label slices there too, or keep training to the labelled part (z_range)"
        findings.append(Finding(WARNING, "uneven_labels", text, action))
    return findings


def check_label(
    volume: Volume,
    name: str,
    scan: LabelScan,
    *,
    listed: Sequence[int],
    z_range: tuple[int, int],
) -> list[Finding]:
    """Findings on one structure.

    Args:
      volume: what is checked.
      name: of the structure.
      scan: what was read of it.
      listed: slices in range that count as labelled.
      z_range: first slice and one past the last.
    """
    findings = [*_damage(volume, name, scan, listed), *_amount(name, scan)]
    if any(scan.pixels):
        findings += _copies(name, scan)
        # Whoever converted it may have said so.
        settled = volume.label_info(name).get("unlabelled_slices") == NONE
        deviations = _deviations(name, scan, volume.voxel_size[0], settled=settled)
        findings += deviations
        if not settled and not any(f.topic == "isolated_labels" for f in deviations):
            findings += _empty(name, scan)
        findings += _extent(name, scan, z_range)
    return findings


def check_together(volume: Volume, scans: Scans) -> list[Finding]:
    """Findings on several label images at once."""
    findings = []
    for a, b in itertools.combinations(scans.by_name, 2):
        # "nuclei" and "nuclei_truth" are meant to be the same.
        if not (a.startswith(b) or b.startswith(a)):
            one, other = scans.by_name[a].digests, scans.by_name[b].digests
            same = tuple(sorted(z for z in one if one[z] == other.get(z)))
            if same:
                text = f"{a} and {b} have the same labels on slices {slice_list(same)}"
                action = "see whether a file or folder was given for both"
                findings.append(Finding(WARNING, "same_labels", text, action, same))
    total, outside = sum(scans.nucleoli.values()), sum(scans.outside.values())
    if total and outside > OUTSIDE_SHARE * total:
        worst = tuple(z for z, n in scans.outside.items() if n > OUTSIDE_SHARE * scans.nucleoli[z])
        text = f"{percent(outside / total)} of the pixels of {NUCLEOLI} lie outside {NUCLEI},"
        text += f" on slices {slice_list(worst)}"
        action = "look at both labels there: swapped files, or nuclei drawn without their nucleoli"
        findings.append(Finding(WARNING, "nucleoli_outside_nuclei", text, action, worst))
    if scans.damaged_ignore:
        zs = tuple(scans.damaged_ignore)
        text = f"the ignore mask of slices {slice_list(zs)} is damaged"
        action = "restore the volume from a backup or convert it again"
        findings.append(Finding(ERROR, "damaged_ignore", text, action, zs))
    if scans.pixels and scans.ignored > IGNORED_SHARE * scans.pixels:
        text = f"{percent(scans.ignored / scans.pixels)} of the labelled slices is ignored"
        action = "see whether the mask is inverted: any value above 0 is left out"
        findings.append(Finding(WARNING, "mostly_ignored", text, action))
    if volume.has_ignore:
        stored = volume.labelled_slices(IGNORE)
        gone = missing_shards(volume.path / LABELS / IGNORE / array_path(FULL, 1), stored)
        if gone:
            text = f"the ignore mask of slices {slice_list(gone)} is listed but not stored"
            action = "restore the volume from a backup or convert it again"
            findings.append(Finding(ERROR, "missing_ignore", text, action, tuple(gone)))
    return findings
