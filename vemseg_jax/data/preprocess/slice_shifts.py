"""Positions of all slices from measurements between some of them.

Added up from slice to slice, errors of measurement grow like a random walk. Every slice is
therefore measured against several before it, and the positions are the ones that fit all
measurements best, with little weight on those that contradict the others.

What no measurement can tell from a shift is tissue that runs through the stack at a slant. Where
most structure in view leans the same way, as in a field smaller than a cell, the positions follow
it, unless what builds up slowly is kept as it is (`keep_trend`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from vemseg_jax.data.preprocess.alignment import Measurement

# A slice is measured against the last, second last and fourth last slice that could be placed.
LAGS = (1, 2, 4)
# Slices that match each other, but not those before, are followed apart; so many of such groups.
GROUPS = 3
# Unrelated slices score about 5 at most, those of a stack 20 and more.
MIN_SCORE = 8.0
# Pixels by which a measurement may contradict the others before it loses most of its weight.
TOLERANCE = 0.5
CONSTANT, UNMATCHED, JUMP, UNLINKED = "constant", "unmatched", "jump", "unlinked"


class Link(NamedTuple):
    """An accepted measurement of a slice against the earlier slice `reference`, in pixels."""

    reference: int
    dy: float
    dx: float
    quality: float


@dataclass(frozen=True)
class Estimate:
    """What was measured of slice `z`.

    Attributes:
      z: the slice.
      links: to earlier slices, those that can be trusted.
      quality: the best correlation, 0-1, trusted or not; 0 where none was measured.
      flag: "constant", "unmatched" (no correlation stands out), "jump" (further than allowed), or
        empty; a slice with a flag has no links.
    """

    z: int
    links: tuple[Link, ...] = ()
    quality: float = 0.0
    flag: str = ""


@dataclass(eq=False)
class _Group:
    recent: deque[int]
    size: int = 0


class Tracker:
    """Chooses what a slice is measured against. Slices come in ascending order.

    A slice that matches nothing starts a group of its own, and the slices after it are still
    measured against the good ones before it: one bad slice breaks no chain.
    """

    def __init__(self) -> None:
        self._groups: list[_Group] = []

    def kept(self) -> set[int]:
        """Slices that may still be measured against."""
        return {z for group in self._groups for z in group.recent}

    def candidates(self) -> list[list[int]]:
        """The slices to measure the next one against: group by group until one matches."""
        return [[g.recent[-lag] for lag in LAGS if lag <= len(g.recent)] for g in self._groups]

    def add(self, estimate: Estimate) -> None:
        """Takes note of a measured slice."""
        if estimate.flag == CONSTANT:
            return
        known = {link.reference for link in estimate.links}
        group = next((g for g in self._groups if known & set(g.recent)), None)
        if group is None:
            group = _Group(deque(maxlen=max(LAGS)))
        else:
            self._groups.remove(group)
        group.recent.append(estimate.z)
        group.size += 1
        self._groups.insert(0, group)
        if len(self._groups) > GROUPS:
            # Of a run of noisy slices each is a group; the group of the tissue is the larger one.
            self._groups.remove(min(self._groups[1:], key=lambda g: (g.size, g.recent[-1])))


def match(
    z: int,
    candidates: Iterable[Sequence[int]],
    compare: Callable[[Sequence[int]], list[Measurement]],
    *,
    max_shift: float,
) -> Estimate:
    """Measures a slice against the groups of `Tracker.candidates`, until one matches.

    Args:
      z: the slice.
      candidates: earlier slices, group by group.
      compare: measures slice z against each of some slices.
      max_shift: the furthest that consecutive slices may lie apart, pixels; slices further apart
        in the stack may be that many times further.
    """
    quality, jumped = 0.0, False
    for references in candidates:
        links, beyond = [], False
        for reference, found in zip(references, compare(references), strict=True):
            quality = max(quality, found.quality)
            if found.score < MIN_SCORE:
                continue
            if max(abs(found.dy), abs(found.dx)) > max_shift * (z - reference):
                beyond = True
                continue
            links.append(Link(reference, found.dy, found.dx, found.quality))
        jumped |= beyond
        # Too far from the last slice is too far, whatever an earlier one allows.
        if links and not beyond:
            return Estimate(z, tuple(links), max(link.quality for link in links))
    return Estimate(z, (), quality, JUMP if jumped else UNMATCHED)


def solve_positions(estimates: Sequence[Estimate]) -> tuple[np.ndarray, list[str]]:
    """The shift that puts every slice in the frame of the first.

    Slices, or groups of them, that are linked to no other are placed by their neighbours: between
    those before and after them, at a group's first slice.

    Args:
      estimates: of all slices, in order.

    Returns:
      `[z, 2]` float64 y, x in pixels, and the flags: those of the estimates, and "unlinked" for
      slices of groups that only match each other. Slices that others link to have no flag.

    Raises:
      ValueError: no two slices are linked.
    """
    depth = len(estimates)
    pairs = [(link, e.z) for e in estimates for link in e.links]
    if not pairs:
        raise ValueError("no two slices match")
    start = np.array([link.reference for link, _ in pairs])
    stop = np.array([z for _, z in pairs])
    shifts = np.array([(link.dy, link.dx) for link, _ in pairs])
    quality = np.minimum([link.quality for link, _ in pairs], 0.999)
    graph = sparse.coo_matrix((np.ones(len(pairs)), (start, stop)), shape=(depth, depth))
    _, group = connected_components(graph, directed=False)
    positions = _fit(start, stop, shifts, quality**2 / (1 - quality**2), group)

    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    members.sort(key=lambda zs: (-len(zs), zs[0]))
    flags = [e.flag for e in estimates]
    placed = members[0]
    for z in placed:
        flags[z] = ""
    for zs in members[1:]:
        guess = [np.interp(zs[0], placed, positions[placed, axis]) for axis in (0, 1)]
        positions[zs] += guess - positions[zs[0]]
        placed = np.sort(np.concatenate([placed, zs]))
        for z in zs:
            flags[z] = UNLINKED if len(zs) > 1 else flags[z] or UNMATCHED
    return positions - positions[0], flags


def _fit(
    start: np.ndarray, stop: np.ndarray, shifts: np.ndarray, weight: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Positions `[z, 2]` by least squares, reweighted (Cauchy); the first of a group is at 0.

    The variance of a shift measured by a correlation of height q goes with (1 - q^2) / q^2, of
    which `weight` is the inverse.
    """
    depth, rows = len(group), np.arange(len(start))
    ones = np.ones(len(start))
    matrix = sparse.coo_matrix(
        (np.concatenate([-ones, ones]), (np.tile(rows, 2), np.concatenate([start, stop]))),
        shape=(len(start), depth),
    ).tocsc()
    free = np.setdiff1d(np.arange(depth), np.unique(group, return_index=True)[1])
    matrix = matrix[:, free]
    positions, robust = np.zeros((depth, 2)), weight
    for _ in range(20):
        weighted = matrix.multiply(robust[:, None]).tocsc()
        normal = (matrix.T @ weighted).tocsc()
        for axis in (0, 1):
            positions[free, axis] = spsolve(normal, weighted.T @ shifts[:, axis])
        left = np.abs(positions[stop] - positions[start] - shifts).max(axis=1)
        robust = weight / (1 + (left / TOLERANCE) ** 2)
    return positions


def keep_trend(positions: np.ndarray, placed: np.ndarray, slices: float) -> np.ndarray:
    """Positions without what builds up slowly, by fractions of a pixel a slice.

    Tissue that runs at a slant moves by hundredths of a pixel from slice to slice, always the same
    way, and would carry a stack away over hundreds of slices. Steps are rounded to whole pixels
    and added up, which loses such fractions; of what is left between that and the positions, all
    that changes within about `slices` slices is put back, so that neighbours lie to each other as
    they were measured.

    Args:
      positions: `[z, 2]` as measured, pixels.
      placed: `[z]` bool, slices that were measured; the others lie between them.
      slices: what changes over more than about as many is kept as it is in the stack.

    Returns:
      `[z, 2]`, the first slice where it was.
    """
    zs, known = np.arange(len(positions)), np.flatnonzero(placed)
    steps = np.rint(np.diff(positions[known], axis=0, prepend=positions[known[:1]]))
    coarse = np.cumsum(steps, axis=0) + positions[known[0]]
    left = positions[known] - coarse
    path = np.stack([np.interp(zs, known, coarse[:, axis]) for axis in (0, 1)], -1)
    rest = np.stack([np.interp(zs, known, left[:, axis]) for axis in (0, 1)], -1)
    result = path + rest - ndimage.gaussian_filter1d(rest, slices, axis=0, mode="nearest")
    return result - result[0]
