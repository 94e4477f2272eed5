"""Golden items of the training dataset: pairing, normalisation, crops and targets.

A file says where a crop begins and shows it at training size, not how large it was cut or how a
slice smaller than it was mirrored. Both are found by trying: one of the ways has to fit exactly.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, cases, compare
from vemseg_jax.data.convert.pairing import match_by_trailing_number
from vemseg_jax.data.crops.augment import flip_turn
from vemseg_jax.data.crops.input_pipeline import reflect_pad, short_sides
from vemseg_jax.data.crops.targets import boundary_target, distance_target
from vemseg_jax.data.store.normalization import combine, slice_statistics
from vemseg_jax.resize import _axis_weights, resize_bilinear

Golden = Mapping[str, np.ndarray]
Pad = Callable[[np.ndarray, int], np.ndarray]
LARGEST_FACTOR = 16


def check_dataset_item(golden: Golden) -> Iterator[Result]:
    """Pairing by trailing number, normalisation, crops, flips."""
    if "match/images" in golden:
        yield from _check_pairing(golden)
    images = [golden[k] for k in golden if re.fullmatch(r"image\d*", k)]
    statistics = [slice_statistics(image) for image in images]
    most = np.iinfo(images[0].dtype).max
    norm = combine(*zip(*statistics, strict=True), dtype_max=most)
    expected = golden["f64/norm_mean_std"]
    yield compare("norm_mean_std", [norm.mean, norm.std], expected, tolerances.MEAN_STD)
    for case in cases(golden, "crop_i_j_hflip_vflip"):
        yield from _check_crop(golden, case, norm)


def _check_pairing(golden: Golden) -> Iterator[Result]:
    labeled, unlabeled = match_by_trailing_number(
        [str(n) for n in golden["match/images"]], [str(n) for n in golden["match/targets"]]
    )
    for key, found in (("match/labeled", labeled), ("match/unlabeled", unlabeled)):
        expected = golden[key]
        if len(expected) == len(found) == 0:
            yield Result(f"{key} (none)", 0, 0)
        else:
            yield compare(key, found, expected, 0)


def _check_crop(golden: Golden, case: str, norm) -> Iterator[Result]:
    i, j, left_right, up_down = (int(v) for v in golden[f"{case}/crop_i_j_hflip_vflip"])
    expected, code = golden[f"{case}/image"], jnp.asarray([left_right + 2 * up_down])

    crop, pad = _way(golden["image"] / 1.0, i, j, code=int(code[0]), expected=expected, norm=norm)

    def item(plane: np.ndarray) -> np.ndarray:
        cut = pad(plane[None], crop)[0, i : i + crop, j : j + crop, None]
        small = resize_bilinear(jnp.asarray(cut, jnp.float32), expected.shape[-2:])
        return np.asarray(flip_turn(small[None], code))[..., 0]

    how = f"{crop} -> {expected.shape[-1]}, {pad.__doc__}"
    found = norm(item(golden["image"]))
    yield compare(f"{case}/image ({how})", found, expected, tolerances.NORMALIZED)
    mask = item(golden["mask"]) > 0.5
    yield compare(f"{case}/mask", mask, golden[f"{case}/mask"], 0)
    for name, target in (("boundary", boundary_target), ("distance", distance_target)):
        value = np.asarray(target(jnp.asarray(mask)[..., None]))[..., 0]
        tolerance = 0 if name == "boundary" else tolerances.DISTANCE
        yield compare(f"{case}/{name}", value, golden[f"{case}/{name}"], tolerance)


def _way(plane: np.ndarray, i: int, j: int, *, code: int, expected, norm) -> tuple[int, Pad]:
    """The size of a crop and the padding that give the image of an item, or come nearest."""
    size, best, least = expected.shape[-1], None, np.inf
    flips = (slice(None, None, -1 if code & 2 else 1), slice(None, None, -1 if code & 1 else 1))
    for crop, pad in _ways(plane.shape, i, j, size):
        cut = pad(plane[None], crop)[0, i : i + crop, j : j + crop]
        weights = _axis_weights(crop, size)
        error = np.abs(norm((weights @ cut @ weights.T)[flips]) - expected[0]).max()
        if best is None or error < least:
            best, least = (crop, pad), error
        if error <= tolerances.NORMALIZED:
            break
    if best is None:
        raise KeyError(f"no crop that gives {size} x {size} pixels begins at {i}, {j}")
    return best


def _ways(shape: tuple[int, ...], i: int, j: int, size: int) -> Iterator[tuple[int, Pad]]:
    """Sizes of the crop and paddings that could be meant, whole factors first."""
    sizes = range(size, LARGEST_FACTOR * size + 1)
    for crop in sorted(sizes, key=lambda n: (n % size > 0, n)):
        short = any(short_sides(shape, crop))
        for pad in (_half_pad, _whole_pad, _end_pad) if short else (_no_pad,):
            height, width = pad(np.empty((1, *shape), bool), crop).shape[1:]
            if i + crop <= height and j + crop <= width:
                yield crop, pad


def _no_pad(planes: np.ndarray, crop: int) -> np.ndarray:
    """as it is"""
    del crop
    return planes


def _half_pad(planes: np.ndarray, crop: int) -> np.ndarray:
    """mirrored half on each side"""
    return reflect_pad(planes, short_sides(planes.shape[1:3], crop))


def _whole_pad(planes: np.ndarray, crop: int) -> np.ndarray:
    """mirrored wholly on each side"""
    return reflect_pad(planes, tuple(2 * n for n in short_sides(planes.shape[1:3], crop)))


def _end_pad(planes: np.ndarray, crop: int) -> np.ndarray:
    """mirrored at the end"""
    rows, columns = short_sides(planes.shape[1:3], crop)
    return np.pad(planes, [(0, 0), (0, rows), (0, columns)], mode="reflect")
