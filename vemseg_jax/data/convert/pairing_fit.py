"""How well labels fit the images they are paired with.

Local grey values predict the structure, by linear least squares. The correlation of that
forecast with the labels is compared between pairings: the recorded one, two labels
exchanged, and all labels mirrored. This needs no network: only differences count, and they are
large.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.transform import downscale_local_mean

# Slices compared at most; the work grows with the square.
MOST_SLICES = 16
LEAST_SLICES = 4
# Sides, in pixels: of the images that are smoothed, and of the grid that is fitted.
SMOOTHED_SIDE, FITTED_SIDE = 512, 192
SIGMAS = (1.0, 2.0, 4.0, 8.0)
# Fewer pixels of a structure on the grid tell nothing.
LEAST_PIXELS = 16
# In correlation, summed over both slices of an exchange. On a HeLa stack and on generated tissue
# no exchange of right labels gained anything; undoing a wrong one gained 0.5 and more, unless the
# structure lies at the same place on both slices.
EXCHANGE_GAIN = 0.3
# Mean over the slices: there undoing a mirroring gained 0.15 to 0.5.
MIRROR_GAIN = 0.12
MIRRORS = {
    "top to bottom": (slice(None, None, -1), slice(None)),
    "left to right": (slice(None), slice(None, None, -1)),
    "by half a turn": (slice(None, None, -1), slice(None, None, -1)),
}


def _shrink(plane: np.ndarray, side: int) -> np.ndarray:
    """Block means, so that no side is longer than `side`; what is left of a block is cut off."""
    factor = -(-max(plane.shape) // side)
    if factor == 1 or min(plane.shape) < factor:
        return plane
    h, w = (n // factor * factor for n in plane.shape)
    return downscale_local_mean(plane[:h, :w], (factor, factor))


def _features(image: np.ndarray) -> np.ndarray:
    """`[h, w]` grey values -> `[n, features]` float32: local means, deviations, their products."""
    plane = _shrink(image.astype(np.float32), SMOOTHED_SIDE)
    plane = (plane - plane.mean()) / max(float(plane.std()), 1e-6)
    maps = []
    for sigma in SIGMAS:
        smooth = ndimage.gaussian_filter(plane, sigma)
        rough = ndimage.gaussian_filter((plane - smooth) ** 2, 2 * sigma)
        maps += [smooth, np.sqrt(np.maximum(rough, 0))]
    columns = np.stack([_shrink(m, FITTED_SIDE).ravel() for m in maps], -1)
    columns = (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-6)
    i, j = np.triu_indices(columns.shape[1])
    return np.hstack([columns, columns[:, i] * columns[:, j]])


class _Moments:
    """Sums over the pixels of one image, all that fits and correlations need of it.

    Of centred features `F [n, k]` and centred masks `M [n, m]`: `square` F'F, `products` F'M and
    `lengths [m]` |M|.
    """

    def __init__(self, features: np.ndarray, masks: np.ndarray):
        features, masks = features - features.mean(0), masks - masks.mean(0)
        # Not by BLAS: on a few busy cores its threads wait for each other for longer than this
        # takes on one.
        both = np.hstack([features, masks])
        sums = np.einsum("nk,nm->km", features, both).astype(np.float64)
        self.square, self.products = np.hsplit(sums, [features.shape[1]])
        self.lengths = np.maximum(np.linalg.norm(masks, axis=0), 1e-6)

    def correlation(self, weights: np.ndarray, mask: int) -> float:
        """Of the forecast F @ weights and a column of the masks."""
        length = max(float(weights @ self.square @ weights), 1e-12) ** 0.5
        return float(weights @ self.products[:, mask]) / (length * float(self.lengths[mask]))


class PairingFit:
    """Compares pairings of labels and images of one structure."""

    def __init__(self, images: Mapping[int, np.ndarray], masks: Mapping[int, np.ndarray]):
        """Takes slices of both.

        Args:
          images: `z -> [h, w]` grey values.
          masks: `z -> [h, w]` bool, of the same slices or more; empty ones are left out.
        """
        small = {z: _small_mask(masks[z]) for z in sorted(masks) if z in images}
        kept = [z for z, m in small.items() if m.sum() >= LEAST_PIXELS and m.mean() < 0.99]
        self.slices = tuple(kept)
        self._moments: list[_Moments] = []
        if not self.enough:
            return
        every = [small[z] for z in kept]
        for z in kept:
            # Columns: every slice's mask, then this slice's mirrored ones.
            columns = [*every, *(small[z][mirror] for mirror in MIRRORS.values())]
            stacked = np.stack([m.ravel() for m in columns], -1)
            self._moments.append(_Moments(_features(images[z]), stacked))

    @property
    def enough(self) -> bool:
        """Whether there are slices enough to compare."""
        return len(self.slices) >= LEAST_SLICES

    def _weights(self, columns: Sequence[int], without: tuple[int, ...]) -> np.ndarray:
        """Of a fit to all slices but some; `columns` are their masks."""
        used = [i for i in range(len(self._moments)) if i not in without]
        square = np.sum([self._moments[i].square for i in used], 0)
        square += len(used) * np.eye(len(square))
        products = [self._moments[i].products[:, columns[i]] for i in used]
        return np.linalg.solve(square, np.sum(products, 0))

    def fit(self, mirror: str | None = None) -> float:
        """Mean correlation of the forecast of a slice, learnt from the others, and its labels.

        Args:
          mirror: of `MIRRORS`, to mirror all labels.
        """
        count = len(self.slices)
        columns: Sequence[int] = range(count)
        if mirror is not None:
            columns = [count + list(MIRRORS).index(mirror)] * count
        scores = [
            moments.correlation(self._weights(columns, (i,)), columns[i])
            for i, moments in enumerate(self._moments)
        ]
        return float(np.mean(scores))

    def exchanged(self) -> list[tuple[int, int]]:
        """Pairs of slices whose labels fit far better when exchanged, the clearest first."""
        count = len(self.slices)
        gains = []
        for i, j in itertools.combinations(range(count), 2):
            weights = self._weights(range(count), (i, j))
            a, b = self._moments[i], self._moments[j]
            here = a.correlation(weights, i) + b.correlation(weights, j)
            there = a.correlation(weights, j) + b.correlation(weights, i)
            gains.append((there - here, self.slices[i], self.slices[j]))
        found: list[tuple[int, int]] = []
        for gain, *pair in sorted(gains, reverse=True):
            if gain > EXCHANGE_GAIN and not {z for other in found for z in other} & set(pair):
                found.append((pair[0], pair[1]))
        return found


def _small_mask(mask: np.ndarray) -> np.ndarray:
    """`[h, w]` bool -> shares in [0, 1] on the grid that is fitted."""
    return _shrink(_shrink(mask.astype(np.float32), SMOOTHED_SIDE), FITTED_SIDE)
