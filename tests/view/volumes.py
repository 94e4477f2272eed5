"""A small volume with everything that a viewer shows."""

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.data.store.volume_writer import create_volume

SHAPE = (7, 150, 209)
VOXEL_SIZE = (50.0, 8.0, 9.0)
LABELLED = (1, 5)


def images(dtype=np.uint8):
    z, y, x = np.indices(SHAPE)
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(0).integers(0, top // 4, SHAPE)
    return (noise + top // 2 * (x + y + 9 * z) // (sum(SHAPE[1:]) + 63)).astype(dtype)


def nuclei(z):
    y, x = np.indices(SHAPE[1:])
    return (y - 70) ** 2 + (x - 90 - 3 * z) ** 2 < 45**2


def write(path, *, downsample=4, dtype=np.uint8):
    with create_volume(
        path, shape=SHAPE, dtype=dtype, voxel_size=VOXEL_SIZE, downsample=downsample
    ) as writer:
        for z, plane in enumerate(images(dtype)):
            writer.write(z, plane)
        with writer.create_label("nuclei") as label:
            for z in LABELLED:
                label.write_mask(z, nuclei(z))
        with writer.create_label("ignore", kind="ignore") as label:
            label.write_mask(2, nuclei(0))
    volume = open_volume(path)
    for name in ("nuclei_pred", "trial"):
        with create_label(volume, name, levels=(TRAINING,), kind="prediction") as label:
            shape = volume.plane_shape(TRAINING)
            label.write(3, TRAINING, np.tri(*shape, dtype=np.uint8))
    # What a probability image would be: the same label group, its pixels 0-255.
    with create_label(volume, "nuclei_prob", levels=(FULL,), kind="probability") as label:
        pass
    spec = volume.label("nuclei_prob", FULL).spec()
    ts.open(spec, open=True, write=True).result().write(probabilities()).result()
    return volume.path


def probabilities():
    return np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
