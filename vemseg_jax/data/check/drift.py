"""Checks of how grey values run along z, from the statistics that the conversion recorded."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from vemseg_jax.data.check.report import WARNING, Finding
from vemseg_jax.data.store.slice_list import slice_list
from vemseg_jax.data.store.volume import Volume

# Deviations count when they exceed so many robust standard deviations of the stack and so many
# standard deviations of the grey values of a slice.
ROBUST_LIMIT = 6.0
OUTLIER_STDS, JUMP_STDS, DRIFT_STDS = 0.2, 0.3, 0.5
# Slices on either side of a jump.
JUMP_WINDOW = 5
# Fewer slices than these do not tell what is usual.
LEAST_SLICES = 12
LEAST_LEVELS = 4.0
MATCH = "vemseg-preprocess --histogram=match"


def _robust(values: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _beyond(values: np.ndarray, least: float) -> np.ndarray:
    return np.abs(values) > max(ROBUST_LIMIT * _robust(values), least)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running median; the ends repeat."""
    return ndimage.median_filter(values, size=window, mode="nearest")


def _jumps(mean: np.ndarray, std: float) -> np.ndarray:
    """Positions from which on the mean is another, as against single slices that stand out."""
    w = JUMP_WINDOW
    at = np.arange(w, len(mean) - w + 1)
    after = np.stack([np.median(mean[i : i + w]) for i in at])
    before = np.stack([np.median(mean[i - w : i]) for i in at])
    step = after - before
    edge = np.abs(mean[at] - mean[at - 1])
    # The steps themselves do not tell the noise: in a short stack a jump is in most of them.
    limit = max(ROBUST_LIMIT * _robust(np.diff(mean)), JUMP_STDS * std)
    found = np.flatnonzero((np.abs(step) > limit) & (edge > 0.5 * np.abs(step)))
    # Of neighbours that all qualify the steepest is meant.
    steepest = [i for i in found if edge[i] == edge[max(0, i - w) : i + w + 1].max()]
    return at[np.array(steepest, int)]


def check_drift(volume: Volume, slices: Sequence[int]) -> tuple[float | None, list[Finding]]:
    """The drift, as in `ImageFacts`, and findings on how the recorded statistics run along z."""
    used = np.array([z for z in slices if volume.slice_std[z] > 0], int)
    if len(used) < LEAST_SLICES:
        return None, []
    mean, std = volume.slice_mean[used], volume.slice_std[used]
    typical = float(np.median(std))
    findings = []
    odd: dict[str, list[int]] = {}
    for what, values in (("mean", mean), ("contrast", std)):
        residual = values - _smooth(values, 11)
        odd[what] = used[_beyond(residual, OUTLIER_STDS * typical)].tolist()
    outliers = sorted({*odd["mean"], *odd["contrast"]})
    if outliers:
        what = " and ".join(name for name, zs in odd.items() if zs)
        findings.append(
            Finding(
                WARNING,
                "outlier_slices",
                f"{what} of slices {slice_list(outliers)} stand out from their neighbours",
                f"look at them; {MATCH} evens out brightness, lost slices are better left out",
                tuple(outliers),
            )
        )
    jumps = used[_jumps(mean, typical)].tolist()
    if jumps:
        findings.append(
            Finding(
                WARNING,
                "jumps",
                f"brightness changes abruptly at slices {slice_list(jumps)} and stays so",
                f"even it out with {MATCH}, or label slices on either side",
                tuple(jumps),
            )
        )
    smooth = _smooth(mean, max(JUMP_WINDOW, len(mean) // 10))
    drift = float(np.ptp(smooth)) / typical
    if drift > DRIFT_STDS and not jumps:
        findings.append(
            Finding(
                WARNING,
                "drift",
                f"the mean grey value drifts between {smooth.min():.3g} and {smooth.max():.3g},"
                f" {drift:.2f} standard deviations of a slice",
                f"even it out with {MATCH}, or label slices all along z",
            )
        )
    if typical * volume.dtype_max < LEAST_LEVELS:
        findings.append(
            Finding(
                WARNING,
                "low_contrast",
                f"grey values of a slice spread over {typical * volume.dtype_max:.2g} of"
                f" {volume.dtype_max} levels (standard deviation)",
                "stretch the contrast where the images are exported, before rounding to"
                f" {volume.dtype}",
            )
        )
    return drift, findings
