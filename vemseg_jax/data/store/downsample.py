"""Downsampling to the training scale.

The rule is bilinear interpolation by 4 with half-pixel centres and no antialiasing: a pixel of
the training scale is the mean of the full-resolution pixels 4i + 1 and 4i + 2 in each axis, the
middle 2 x 2 of a 4 x 4 block. An axis of n pixels becomes (n + 1) // 4.
"""

import numpy as np

FACTOR = 4


def downsampled_size(size: int) -> int:
    """Pixels along an axis at the training scale, for `size` pixels at full resolution."""
    return (size + 1) // FACTOR


def _middle(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four middle pixels of every 4 x 4 block, each `[..., (h + 1) // 4, (w + 1) // 4]`."""
    h, w = (downsampled_size(n) for n in plane.shape[-2:])
    first, second = slice(1, None, FACTOR), slice(2, None, FACTOR)
    upper, lower = plane[..., first, :][..., :h, :], plane[..., second, :]
    return (
        upper[..., first][..., :w],
        upper[..., second],
        lower[..., first][..., :w],
        lower[..., second],
    )


def downsample_image(plane: np.ndarray) -> np.ndarray:
    """Images `[..., h, w]` to `[..., (h + 1) // 4, (w + 1) // 4]`, same dtype.

    The mean of the four middle pixels of every 4 x 4 block, rounded half up for integer types.

    Args:
      plane: uint8, uint16 or floating point, any range.
    """
    a, b, c, d = _middle(plane)
    if np.issubdtype(plane.dtype, np.floating):
        return (a + b + c + d) / np.asarray(4, plane.dtype)
    if plane.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"image of type {plane.dtype}; uint8, uint16 or a float type is needed")
    total = np.add(a, b, dtype=np.uint32)
    total += c
    total += d
    total += 2
    total >>= 2
    return total.astype(plane.dtype)


def _count_middle(plane: np.ndarray) -> np.ndarray:
    if plane.size and plane.max() > 1:
        raise ValueError(f"mask with a value of {plane.max()}; masks are 0 or 1")
    a, b, c, d = _middle(plane)
    return np.add(a, b, dtype=np.uint8) + c + d


def downsample_mask(plane: np.ndarray) -> np.ndarray:
    """Masks `[..., h, w]`, 0/1 or bool, to `[..., (h + 1) // 4, (w + 1) // 4]` uint8, 0/1.

    A pixel is set when at least 3 of the 4 middle pixels are: the interpolated 0/1 mask > 0.5.

    Raises:
      ValueError: a value above 1.
    """
    return (_count_middle(plane) >= 3).astype(np.uint8)


def downsample_ignore(plane: np.ndarray) -> np.ndarray:
    """As `downsample_mask`, but set when any of the 4 middle pixels is.

    For masks of what is left out: a pixel made partly of bad pixels is bad.
    """
    return (_count_middle(plane) >= 1).astype(np.uint8)


def downsample_label(plane: np.ndarray, *, unlabelled: int = 255) -> np.ndarray:
    """Labels `[..., h, w]`, bool or 0, 1 and `unlabelled`, as `downsample_mask`, uint8.

    A pixel that draws on an unlabelled one is unlabelled.
    """
    unknown = plane == unlabelled
    if plane.dtype == bool or not unknown.any():
        return downsample_mask(plane)
    mask = downsample_mask(np.where(unknown, np.zeros((), plane.dtype), plane))
    mask[downsample_ignore(unknown) == 1] = unlabelled
    return mask
