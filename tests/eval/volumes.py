"""A small volume with known labels, written the way the binaries write it."""

import numpy as np

from vemseg_jax.data.store.volume import FULL, TRAINING
from vemseg_jax.data.store.volume_writer import PREDICTION, create_volume

DEPTH, HEIGHT, WIDTH = 12, 64, 96
TRAINING_SLICES, VALIDATION_SLICES = (0, 11), (6,)
VOXEL_SIZE = (50.0, 16.0, 16.0)


def box(z, top, left, h, w, *, depths=range(DEPTH)):
    """`[z, y, x]` uint8 of a box in the slices `depths`; only slice `z` of it."""
    plane = np.zeros((HEIGHT, WIDTH), np.uint8)
    if z in depths:
        plane[top : top + h, left : left + w] = 1
    return plane


def nuclei(z):
    return box(z, 8, 8, 32, 40)


def predicted_nuclei(z):
    """The truth moved 8 pixels right; the truth itself where it was trained on."""
    return nuclei(z) if z in TRAINING_SLICES else box(z, 8, 16, 32, 40)


def nucleoli(z):
    return box(z, 16, 16, 8, 8, depths=range(3, 9))


def predicted_nucleoli(z):
    """The truth, and as much again in slice 2, whose truth is empty."""
    return box(z, 16, 16, 8, 8, depths=range(2, 9))


def ignored(z):
    """In slice 4: the right edge of the predicted nucleus."""
    return box(z, 0, 48, HEIGHT, 48, depths=(4,))


def write_volume(
    path,
    *,
    downsample=4,
    predictions=("nuclei", "nucleoli"),
    levels=(FULL, TRAINING),
    labelled=range(DEPTH),
    covered=range(DEPTH),
    ignore=False,
    attributes=None,
):
    """Writes images, the labels nuclei and nucleoli, and predictions of some of them."""
    rng = np.random.default_rng(0)
    with create_volume(
        path,
        shape=(DEPTH, HEIGHT, WIDTH),
        dtype=np.uint8,
        voxel_size=VOXEL_SIZE,
        downsample=downsample,
        slice_names=[f"slice_{z:02d}.tif" for z in range(DEPTH)],
    ) as writer:
        for z in range(DEPTH):
            noise = rng.integers(0, 60, (HEIGHT, WIDTH)) + 60 * nuclei(z) + 60 * nucleoli(z)
            writer.write(z, noise.astype(np.uint8))
        for name, mask in (("nuclei", nuclei), ("nucleoli", nucleoli)):
            with writer.create_label(name) as label:
                for z in labelled:
                    label.write_mask(z, mask(z))
        if ignore:
            with writer.create_label("ignore", kind="ignore") as label:
                for z in range(DEPTH):
                    label.write_mask(z, ignored(z))
        for name in predictions:
            mask = {"nuclei": predicted_nuclei, "nucleoli": predicted_nucleoli}[name]
            info = {
                "structure": name,
                "training_slices": list(TRAINING_SLICES),
                "validation_slices": list(VALIDATION_SLICES),
            }
            with writer.create_label(
                f"{name}_pred",
                levels=levels,
                kind=PREDICTION,
                attributes=info if attributes is None else attributes,
            ) as label:
                for z in covered:
                    label.write_mask(z, mask(z))
    return path
