"""Digitised ellipsoids, their true surface, and volumes of them."""

import math

import numpy as np
from scipy.special import ellipeinc, ellipkinc

from vemseg_jax.data.store.volume import FULL, TRAINING
from vemseg_jax.data.store.volume_writer import PREDICTION, create_volume


def ellipsoid_surface(axes):
    """With incomplete elliptic integrals (Legendre's formula); any order of half-axes."""
    c, b, a = sorted(axes)
    if a == c:
        return 4 * math.pi * a * a
    angle = math.acos(c / a)
    k = (a * (b * b - c * c) / b) * a / (b * (a * a - c * c))
    e, f = ellipeinc(angle, k), ellipkinc(angle, k)
    sin, cos = math.sin(angle), math.cos(angle)
    return 2 * math.pi * (c * c + a * b / sin * (e * sin * sin + f * cos * cos))


def digitised(axes, voxel_size, *, seed):
    """`[z, y, x]` bool: an ellipsoid in a random pose, or upright in the middle (seed None)."""
    rng = np.random.default_rng(seed)
    turn = np.eye(3) if seed is None else np.linalg.qr(rng.normal(size=(3, 3)))[0]
    reach = max(axes) * 1.05
    grid = []
    for size in voxel_size:
        line = np.arange(-reach, reach + size, size)
        grid.append(line if seed is None else line + rng.uniform(-0.5, 0.5) * size)
    where = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1) @ turn
    return ((where / np.array(axes)) ** 2).sum(axis=-1) <= 1


def ellipsoid(shape, voxel_size, centre, axes):
    """`shape` zyx bool; centre of the first voxel at 0, lengths in nm, zyx."""
    z, y, x = (np.arange(n) * s for n, s in zip(shape, voxel_size, strict=True))
    squares = [((line - c) / a) ** 2 for line, c, a in zip((z, y, x), centre, axes, strict=True)]
    return squares[0][:, None, None] + squares[1][:, None] + squares[2] <= 1


def write_labels(path, labels, *, voxel_size, downsample=1, covered=None, levels=None):
    """A grey volume with predictions `name -> [z, y, x] uint8`, 0, 1 and 255.

    Args:
      path: the volume.
      labels: full resolution.
      voxel_size: nm, zyx.
      downsample: 1 or 4.
      covered: `name -> slices` predicted; by default all.
      levels: of the predictions; by default all.
    """
    shape = next(iter(labels.values())).shape
    with create_volume(
        path, shape=shape, dtype=np.uint8, voxel_size=voxel_size, downsample=downsample
    ) as writer:
        for z in range(shape[0]):
            writer.write(z, np.full(shape[1:], z % 7, np.uint8))
        for name, volume in labels.items():
            with writer.create_label(
                name, kind=PREDICTION, levels=levels or (FULL, TRAINING)
            ) as label:
                for z in (covered or {}).get(name, range(shape[0])):
                    label.write_mask(z, volume[z])
    return path
