"""Digitised ellipsoids and their true surface."""

import math

import numpy as np
from scipy.special import ellipeinc, ellipkinc


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
