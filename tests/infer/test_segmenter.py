"""Arrays in memory are segmented as volumes are."""

import logging

import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.predictor import Method
from vemseg_jax.infer.segmenter import load_segmenter
from vemseg_jax.train.loop import train

# Pixels of the training scale are 40 nm: those of the stack, or 4 of them.
FINE, COARSE = (40, 10, 10), (40, 40, 40)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter")
    volume = write_volume(folder / "v.zarr", size=(36, 42))
    train(small_config(volume, steps=30, eval_every=0), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def segmenter(run):
    return load_segmenter(run)


def stack(depth=3, size=(70, 90), dtype=np.uint8, seed=3):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    y, x = np.mgrid[: size[0], : size[1]]
    grey = 0.4 + 0.2 * (np.hypot(y - 30, x - 40) < 20) + rng.normal(0, 0.06, (depth, *size))
    return np.round(top * np.clip(grey, 0, 1)).astype(dtype)


def by_volume(images, voxel_size, downsample, run, path, **options):
    """Masks and stored probabilities of the same slices as a volume."""
    with create_volume(
        path, shape=images.shape, dtype=images.dtype, voxel_size=voxel_size, downsample=downsample
    ) as writer:
        for z, plane in enumerate(images):
            writer.write(z, plane)
    made = PredictOptions(resolution=FULL, probabilities=True, **options)
    assert predict_volume(path, run, options=made).complete
    volume = open_volume(path)
    return [volume.label(f"nuclei_{name}", FULL).read().result() for name in ("pred", "prob")]


@pytest.mark.parametrize(
    ("voxel_size", "downsample", "dtype", "options"),
    [
        (FINE, 4, np.uint8, {}),
        (FINE, 4, np.uint16, {"method": "whole", "flips": True}),
        (COARSE, 1, np.uint16, {"normalization": "slice"}),
        (COARSE, 1, np.uint8, {"normalization": "training", "overlap": 0.5}),
    ],
)
def test_a_stack_is_predicted_as_its_volume_is(
    run, segmenter, tmp_path, voxel_size, downsample, dtype, options
):
    images = stack(dtype=dtype)
    result = segmenter.predict(images, voxel_size=voxel_size, **options)
    way = {"name": options.pop("method", "window")}
    way |= {name: options.pop(name) for name in ("flips", "overlap") if name in options}
    path = tmp_path / "v.zarr"
    mask, prob = by_volume(
        images, voxel_size, downsample, run, path, method=Method(**way), **options
    )
    found, chance = result.masks["nuclei"], result.prob["nuclei"]
    assert found.shape == chance.shape == images.shape
    assert found.dtype == bool and chance.dtype == np.float32
    # Not all alike, or the comparison would say nothing.
    assert chance.min() >= 0 and chance.max() <= 1 and 0 < found.mean() < 1
    np.testing.assert_array_equal(found, mask == 1)
    np.testing.assert_array_equal(found, chance > 0.5)
    np.testing.assert_array_equal(np.round(255 * chance), prob)


def test_one_slice(segmenter):
    images = stack(depth=1)
    whole = segmenter.predict(images, voxel_size=COARSE)
    alone = segmenter.predict(images[0], voxel_size=(40, 40))
    np.testing.assert_array_equal(alone.prob["nuclei"], whole.prob["nuclei"][0])
    assert alone.masks["nuclei"].shape == images.shape[1:]
    # Big-endian, as FITS and some TIFF readers give it, is the same stack.
    other = segmenter.predict(
        (257 * images[0].astype(np.uint16)).astype(">u2"),
        voxel_size=(40, 40, 40),
        probabilities=False,
    )
    assert other.prob == {}
    np.testing.assert_array_equal(other.masks["nuclei"], alone.masks["nuclei"])


def test_what_is_done_to_a_stack_is_said(segmenter, caplog):
    caplog.set_level(logging.INFO, "vemseg_jax")
    notes = segmenter.predict(stack(dtype=np.uint16), voxel_size=FINE).notes
    assert "slices shrunk 4 times to the scale of the training" in notes
    assert any(
        "uint16 are divided by 65535; the training had images of 0 to 255" in n for n in notes
    )
    assert any("normalised by the stack's own mean" in note for note in notes)
    assert not any("its largest grey value" in note for note in notes)
    assert caplog.messages == list(notes)
    caplog.clear()
    notes = segmenter.predict(stack().astype(np.uint16), voxel_size=COARSE).notes
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert "give stack.astype(np.uint8)" in warnings[0] and warnings[0] in notes
    assert "far from those of the training" in warnings[1]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 40, 40), np.float32), "stack of type float32: give grey values"),
        (np.zeros((4, 40, 40), np.int16), r"type int16.*32768"),
        (np.zeros((4, 40, 40), bool), "this is a mask"),
        (np.zeros((4, 40, 40), np.uint32), "type uint32"),
        (np.zeros((1, 4, 40, 40), np.uint8), r"shape \(1, 4, 40, 40\): give \[z, y, x\]"),
        (np.zeros(40, np.uint8), r"shape \(40,\)"),
        (np.zeros((0, 40, 40), np.uint8), "empty"),
        ("my.zarr", "a path; .*vemseg_jax.predict"),
    ],
)
def test_stacks_that_are_refused(segmenter, images, message):
    with pytest.raises(InputError, match=message):
        segmenter.predict(images, voxel_size=COARSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voxel_size": (50, 4, 4)}, "pixels of 4 x 4 nm .* learned pixels of 40 x 40 nm.*10 x 10"),
        ({"voxel_size": (40, 40)}, r"voxel_size=\(40, 40\): give \(z, y, x\) in nm"),
        ({"voxel_size": 40}, "voxel_size=40: give"),
        ({"voxel_size": (40, 0, 40)}, "voxel_size"),
        ({"voxel_size": COARSE, "normalization": "mine"}, "normalization=mine: must be one of"),
        ({"voxel_size": COARSE, "method": "mine"}, "method=mine: must be one of"),
        ({"voxel_size": COARSE, "batch_size": 0}, "batch_size=0"),
    ],
)
def test_options_that_are_refused(segmenter, options, message):
    with pytest.raises(InputError, match=message):
        segmenter.predict(stack(), **options)


def test_a_folder_that_is_no_run_is_refused(run, tmp_path):
    for path, message in (
        (run.parent / "nothing", "no such folder"),
        (run.parent, r"a folder of runs; give one of them: run"),
        (tmp_path, "holds no checkpoints"),
        (run / "config.json", "a file"),
    ):
        with pytest.raises(InputError, match=message):
            load_segmenter(path)
    with pytest.raises(InputError, match="which=newest: must be one of best, latest"):
        load_segmenter(run, which="newest")
    with pytest.raises(InputError, match="precision=int8: must be one of float32"):
        load_segmenter(run, precision="int8")
    with pytest.raises(InputError, match="trained one"):
        load_segmenter(run, prediction="mean")


def test_a_run_in_the_home_folder(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert "step=30" in repr(load_segmenter("~/run"))


def test_networks_that_give_no_numbers_are_refused(run):
    import jax

    broken = load_segmenter(run)
    weights = broken._trained.variables["params"]
    broken._trained.variables["params"] = jax.tree.map(lambda x: x * np.nan, weights)
    with pytest.raises(InputError, match=r"slice 0.*no numbers"):
        broken.predict(stack(), voxel_size=COARSE)
