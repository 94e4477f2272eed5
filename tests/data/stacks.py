"""A stack with known shifts: a texture that changes slowly along z, cut out at known places."""

import numpy as np
from scipy import ndimage

from vemseg_jax.data.store.volume_writer import create_volume


def texture(depth, size, *, seed=0):
    """`[z, y, x]` float32, mean 120, standard deviation 30.

    A random texture wanders by itself, which no alignment can tell from shifts: less so the slower
    it changes along z, the finer it is, and the larger the field.
    """
    noise = np.random.default_rng(seed).normal(size=(depth, size, size)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, (12, 1.5, 1.5), truncate=3)
    return 120 + 30 * smooth / smooth.std()


def walk(depth, *, seed=0, step=2, jitter=3, limit=20):
    """`[z, 2]` whole pixels within +-limit: a reflected random walk with jitter; the first is 0."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-step, step + 1, (depth, 2))
    path = np.cumsum(steps, axis=0) + limit - jitter
    span = 2 * (limit - jitter)
    path = np.abs((path + span) % (2 * span) - span) - (limit - jitter)
    path += rng.integers(-jitter, jitter + 1, (depth, 2))
    return path - path[0]


def cut(volume, shifts, *, margin, noise=15.0, drift=True, seed=0):
    """Slices uint8 whose content must be moved by `shifts` to lie as it does in `volume`."""
    rng = np.random.default_rng(seed)
    size = volume.shape[1] - 2 * margin
    planes = []
    for z, (dy, dx) in enumerate(shifts):
        plane = volume[z, margin + dy :, margin + dx :][:size, :size]
        if drift:
            plane = plane * (1 + 0.2 * np.sin(z / 15)) + 25 * np.sin(z / 7)
        plane = plane + rng.normal(0, noise, plane.shape) if noise else plane
        planes.append(np.clip(np.rint(plane), 0, 255).astype(np.uint8))
    return np.stack(planes)


def write(path, planes, *, labels=None, ignore=None, downsample=1, **options):
    """A volume of the slices; `labels` and `ignore` map z to masks."""
    with create_volume(
        path,
        shape=planes.shape,
        dtype=planes.dtype,
        voxel_size=(40, 10, 10),
        downsample=downsample,
        **options,
    ) as writer:
        for z, plane in enumerate(planes):
            writer.write(z, plane)
        if labels is not None:
            with writer.create_label("nuclei", attributes={"source": "drawn"}) as label:
                for z, mask in labels.items():
                    label.write_mask(z, mask)
        if ignore is not None:
            with writer.create_label("ignore", kind="ignore") as label:
                for z, mask in ignore.items():
                    label.write_mask(z, mask)
    return path
