"""Translation between two slices, and slices translated to a common frame.

Section 2.1.2 of Pagano et al. 2023: consecutive slices are aligned in x and y by phase
correlation, then cropped to the area they share. Offsets are y, x in pixels of the array at hand.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from skimage.registration import phase_cross_correlation

from vemseg_jax.data.store.volume import UNLABELLED

# Estimates are rounded to a twentieth of a pixel.
UPSAMPLE = 20
# Gaussians (standard deviation in pixels) of the band that is compared: finer is mostly noise,
# coarser is brightness, which drifts.
FINE, COARSE = 1.5, 8.0
# Contrast is equalised over this neighbourhood and clipped at so many standard deviations: the
# strongest edges, such as slanting borders of blood vessels, else decide alone.
NEIGHBOURHOOD, CLIP = 16.0, 2.0


class Measurement(NamedTuple):
    """How a slice lies to another.

    Attributes:
      dy, dx: the shift that puts the moving slice on the reference, pixels.
      quality: height of the correlation peak, 0-1; 1 for equal slices.
      score: the same in standard deviations of the correlation of unrelated slices, whose highest
        peak is about 5.
    """

    dy: float
    dx: float
    quality: float
    score: float


def spectrum(plane: np.ndarray) -> np.ndarray | None:
    """What `measure` compares of a slice.

    Band-passed, with even local contrast, under a Hann window; its Fourier transform, divided by
    the root of its magnitude. That is half way from plain to phase correlation: measured on noisy
    stacks, the full whitening of phase correlation loses most to noise, and none at all most to
    large structures.

    Args:
      plane: `[h, w]` grey values, any range.

    Returns:
      `[h', w']` complex64, h' <= h and w' <= w such that the transform is fast; None when the
      slice is constant there.
    """
    h, w = (fft.prev_fast_len(n) for n in plane.shape)
    image = plane[:h, :w].astype(np.float32)
    if image.min() == image.max():
        return None
    image = ndimage.gaussian_filter(image, FINE) - ndimage.gaussian_filter(image, COARSE)
    contrast = np.sqrt(ndimage.gaussian_filter(np.square(image), NEIGHBOURHOOD))
    # The floor keeps the empty parts of a slice from being blown up to noise.
    floor = 0.1 * float(contrast.mean()) + 1e-6
    image = np.clip(image / (contrast + floor), -CLIP, CLIP)
    image *= np.hanning(h + 2)[1:-1, None].astype(np.float32)
    image *= np.hanning(w + 2)[1:-1].astype(np.float32)
    transform = fft.fft2(image)
    magnitude = np.abs(transform)
    transform /= np.sqrt(magnitude + 1e-6 * magnitude.max())
    y, x = fft.fftfreq(h)[:, None], fft.fftfreq(w)
    low_pass = np.exp(-2 * (np.pi * FINE) ** 2 * (y**2 + x**2))
    return (transform * low_pass).astype(np.complex64)


def measure(reference: np.ndarray, moving: np.ndarray) -> Measurement:
    """The shift of one slice to another from their `spectrum`, both of one shape."""
    shift, error, _ = phase_cross_correlation(
        reference, moving, space="fourier", normalization=None, upsample_factor=UPSAMPLE
    )
    quality = math.sqrt(max(0.0, 1.0 - float(error) ** 2))
    first, second = (np.square(f.real) + np.square(f.imag) for f in (reference, moving))
    # Were the phases of the two unrelated, the correlation would have this spread.
    spread = math.sqrt(float((first * second).sum(dtype=np.float64)))
    scale = math.sqrt(float(first.sum(dtype=np.float64)) * float(second.sum(dtype=np.float64)))
    return Measurement(float(shift[0]), float(shift[1]), quality, quality * scale / spread)


class Box(NamedTuple):
    """The area all slices share: its first pixel in the common frame, and its size."""

    top: int
    left: int
    height: int
    width: int


def shared_box(shifts: np.ndarray, shape: tuple[int, int]) -> Box:
    """The largest box that lies within every slice after its shift.

    Args:
      shifts: `[z, 2]` y, x in pixels.
      shape: `(h, w)` of the slices.

    Returns:
      The box; height or width are 0 or below when the slices share nothing.
    """
    top, left = (math.ceil(s) for s in shifts.max(axis=0))
    bottom, right = (n + math.floor(s) for n, s in zip(shape, shifts.min(axis=0), strict=True))
    return Box(top, left, bottom - top, right - left)


def translate_image(
    plane: np.ndarray, start: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    """The box `[h, w]` of a slice whose first pixel lies at `start`.

    Whole positions copy pixels. Others are interpolated by cubic convolution (Keys 1981, a = -1/2),
    rounded and clipped to the range of the type; beyond its edges the slice goes on with the value
    at the edge, which only the outermost pixels of the box can draw on.

    Args:
      plane: uint8 or uint16.
      start: y, x; `start` and `start + shape - 1` lie within the slice.
      shape: of the box.
    """
    (y, fy), (x, fx) = (_split(s) for s in start)
    h, w = shape
    if not fy and not fx:
        return plane[y : y + h, x : x + w].copy()
    result = np.empty(shape, plane.dtype)
    columns = np.clip(np.arange(x - 1, x + w + 2), 0, plane.shape[1] - 1)
    rows = max(1, 2**20 // w)
    for first in range(0, h, rows):
        n = min(rows, h - first)
        lines = np.clip(np.arange(y + first - 1, y + first + n + 2), 0, plane.shape[0] - 1)
        block = plane[lines][:, columns].astype(np.float32)
        block = _weigh([block[i : i + n] for i in range(4)], fy)
        block = _weigh([block[:, i : i + w] for i in range(4)], fx)
        limit = np.iinfo(plane.dtype).max
        result[first : first + n] = np.clip(np.rint(block), 0, limit).astype(plane.dtype)
    return result


def translate_label(
    plane: np.ndarray, start: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    """As `translate_image` for labels: the nearest pixel, 255 (unlabelled) beyond the slice."""
    y, x = (math.floor(s + 0.5) for s in start)
    result = np.full(shape, UNLABELLED, plane.dtype)
    inside = plane[max(y, 0) : y + shape[0], max(x, 0) : x + shape[1]]
    top, left = max(-y, 0), max(-x, 0)
    result[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return result


def translate_ignore(
    plane: np.ndarray, start: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    """As `translate_image` for the ignore mask, bool: True where any pixel drawn on is ignored."""
    (y, fy), (x, fx) = (_split(s) for s in start)
    h, w = shape
    padded = np.pad(plane != 0, 2)
    # A pixel of the padded mask lies two further; interpolation draws on -1 to +2.
    ys = range(y + 1, y + 5) if fy else (y + 2,)
    xs = range(x + 1, x + 5) if fx else (x + 2,)
    lines = np.zeros((h, padded.shape[1]), bool)
    for i in ys:
        lines |= padded[i : i + h]
    result = np.zeros(shape, bool)
    for i in xs:
        result |= lines[:, i : i + w]
    return result


def _split(position: float) -> tuple[int, float]:
    whole = math.floor(position)
    return whole, position - whole


def _weigh(pixels: list[np.ndarray], t: float) -> np.ndarray:
    """The value at `t` in [0, 1) from the pixels at -1, 0, 1 and 2."""
    result = (((-0.5 * t + 1.0) * t - 0.5) * t) * pixels[0]
    result += ((1.5 * t - 2.5) * t * t + 1.0) * pixels[1]
    result += (((-1.5 * t + 2.0) * t + 0.5) * t) * pixels[2]
    result += ((0.5 * t - 0.5) * t * t) * pixels[3]
    return result
