"""What is advised where the training scale or the crops do not suit a volume."""

from types import SimpleNamespace

import pytest

from vemseg_jax.data.check.report import MemoryFacts, memory_lines
from vemseg_jax.data.check.scale import check_scale
from vemseg_jax.data.store.volume import plane_shape


def volume(h, w, nm, downsample):
    shape = (10, h, w)
    return SimpleNamespace(
        shape=shape,
        downsample=downsample,
        voxel_size=(50.0, nm, nm),
        plane_shape=lambda level: plane_shape(shape, level, downsample),
    )


@pytest.mark.parametrize(
    ("h", "w", "nm", "downsample", "crop", "topic", "action"),
    [
        # HeLa, SBF-SEM, converted as if it were fine: no crop helps.
        (500, 500, 40, 4, 256, "downsample", "--downsample=1, to train on slices of 500 x 500"),
        (500, 500, 40, 4, 512, "downsample", "--downsample=1"),
        (500, 500, 40, 1, 256, None, ""),
        (500, 500, 40, 1, 512, None, ""),
        (300, 500, 40, 1, 512, "crop_size", "crop_size=288"),
        # Large, but coarse all the same.
        (4000, 4000, 30, 4, 512, "downsample", "pixels of 30 nm"),
        # Fine, and small: a crop-out of a few hundred pixels.
        (400, 400, 8, 4, 256, "downsample", "slices of 400 x 400 pixels of 8 nm"),
        (200, 200, 8, 4, 512, "downsample", "with --config.data.crop_size=192"),
        # The phantom of the quickstart, and a volume like the study's.
        (768, 1024, 16, 4, 512, "crop_size", "crop_size=192"),
        (768, 1024, 16, 4, 256, None, ""),
        (5728, 3511, 4, 4, 512, None, ""),
    ],
)
def test_advice(h, w, nm, downsample, crop, topic, action):
    findings = check_scale(volume(h, w, nm, downsample), crop)
    assert [f.topic for f in findings] == ([topic] if topic else [])
    assert all(action in f.action and "112" not in f.action for f in findings)


def test_memory_says_of_what():
    facts = MemoryFacts("cpu", 16 * 2**30, 2**20, 8 * 2**30, is_host=True)
    text = " ".join(" ".join(memory_lines(facts)).split())
    assert "16 GiB are free in this machine's RAM" in text
    assert "up to a quarter of it, 4 GiB" in text
    assert "labelled slices: 1 MiB, fits" in text and "all slices: 8 GiB, more than that" in text
    facts = MemoryFacts("NVIDIA V100", 16 * 2**30, 1000, 2000, is_host=False)
    assert "on the GPU (NVIDIA V100)" in memory_lines(facts)[0]
