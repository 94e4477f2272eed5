import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from skimage import exposure

from tests.data import stacks
from vemseg_jax.data.preprocess.estimation import AlignOptions
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store import ome
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError

DEPTH, MARGIN = 24, 24


@pytest.fixture(scope="module")
def stack():
    """True shifts, slices, and a mask that lies on them."""
    texture = stacks.texture(DEPTH, 200)
    truth = stacks.walk(DEPTH, limit=8, step=1, jitter=2)
    return texture, truth, stacks.cut(texture, truth, margin=MARGIN, noise=5)


@pytest.fixture(scope="module")
def shifted(stack, tmp_path_factory):
    """A volume whose nuclei are what is bright in the slices before they were shifted."""
    texture, truth, planes = stack
    size = planes.shape[1]
    masks = {
        z: (texture[z, MARGIN + dy :, MARGIN + dx :][:size, :size] > 130).astype(np.uint8)
        for z, (dy, dx) in enumerate(truth)
        if z % 4 == 0
    }
    ignore = np.zeros((size, size), np.uint8)
    ignore[70:80, 60:90] = 1
    path = tmp_path_factory.mktemp("in") / "v.zarr"
    names = [f"s_{z}.tif" for z in range(DEPTH)]
    return stacks.write(path, planes, labels=masks, ignore={3: ignore}, slice_names=names)


def _read(path, name=None):
    volume = open_volume(path)
    array = volume.image(FULL) if name is None else volume.label(name, FULL)
    return array.read().result()


def _contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != "zarr.json"
    }


def test_slices_come_back_with_their_labels(stack, shifted, tmp_path, capsys):
    texture, truth, planes = stack
    output = preprocess(shifted, tmp_path / "out.zarr", PreprocessOptions(align=AlignOptions()))
    volume = open_volume(output)
    with open(output / "preprocess" / "shifts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = np.array([[float(row["dy"]), float(row["dx"])] for row in rows])
    np.testing.assert_array_equal(found, truth)
    assert [row["name"] for row in rows] == list(volume.slice_names)
    assert (output / "preprocess" / "shifts.png").stat().st_size > 10_000
    # What all slices share, and nothing else: no padding is left.
    top, left = truth.max(0)
    height, width = np.array(planes.shape[1:]) - np.ptp(truth, axis=0)
    assert volume.shape == (DEPTH, height, width)
    region = np.s_[MARGIN + top : MARGIN + top + height, MARGIN + left : MARGIN + left + width]
    labels = _read(output, "nuclei")
    assert volume.labelled_slices("nuclei") == tuple(range(0, DEPTH, 4))
    for z in range(0, DEPTH, 4):
        np.testing.assert_array_equal(labels[z], texture[z][region] > 130)
    image = _read(output)
    dy, dx = truth[5]
    expected = planes[5, top - dy : top - dy + height, left - dx : left - dx + width]
    np.testing.assert_array_equal(image[5], expected)
    dy, dx = truth[3]
    ignored = np.argwhere(_read(output, "ignore")[3])
    np.testing.assert_array_equal(ignored.min(0), (70 + dy - top, 60 + dx - left))
    info = ome.read_group(output)["vemseg"]["preprocess"]
    assert info[0]["align"]["shifts"] == truth.tolist()
    assert info[0]["fingerprint"] == open_volume(shifted).fingerprint
    assert volume.voxel_size == open_volume(shifted).voxel_size
    assert "shifts.csv" in capsys.readouterr().out


def test_parts_of_a_pixel_are_interpolated(stack, shifted, tmp_path):
    options = AlignOptions(shift="subpixel", keep_trend=0)
    output = preprocess(shifted, tmp_path / "out.zarr", PreprocessOptions(align=options))
    shifts = np.array(ome.read_group(output)["vemseg"]["preprocess"][0]["align"]["shifts"])
    assert np.abs(shifts - stack[1]).max() < 0.5
    assert np.any(shifts % 1)
    assert set(np.unique(_read(output, "nuclei"))) <= {0, 1, 255}


@pytest.mark.parametrize("downsample", [1, 4])
def test_histograms_are_those_of_scikit_image(stack, tmp_path, downsample):
    planes = stack[2][:4].copy()
    planes[1] = 77
    path = stacks.write(tmp_path / "in.zarr", planes, downsample=downsample)
    made = {}
    for name in ("equalize", "clahe", "match"):
        reference = 2 if name == "match" else None
        options = PreprocessOptions(histogram=name, reference_slice=reference)
        made[name] = _read(preprocess(path, tmp_path / f"{name}.zarr", options))
        np.testing.assert_array_equal(made[name][1], 77)
    equal = np.rint(255 * exposure.equalize_hist(planes[0], nbins=256))
    assert np.abs(made["equalize"][0] - equal).max() <= 1
    adaptive = np.rint(255 * exposure.equalize_adapthist(planes[0]))
    np.testing.assert_array_equal(made["clahe"][0], adaptive)
    matched = np.rint(exposure.match_histograms(planes[0], planes[2]))
    assert np.abs(made["match"][0] - matched).max() <= 1
    np.testing.assert_array_equal(made["match"][2], planes[2])


def test_an_interrupted_run_goes_on_and_ends_the_same(shifted, tmp_path):
    options = PreprocessOptions(align=AlignOptions(), histogram="equalize")
    whole = preprocess(shifted, tmp_path / "whole.zarr", options)
    output = tmp_path / "out.zarr"
    command = [sys.executable, "-m", "vemseg_jax.cli.preprocess", "--align"]
    command += ["--histogram=equalize", f"--volume={shifted}", f"--output={output}"]
    partial = output.with_name("out.zarr.partial")
    # Killed as soon as some slices are written, and once more after that.
    for least in (1, 8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = partial / ".resume" / "slices.jsonl"
        while process.poll() is None:
            if journal.exists() and len(journal.read_text().splitlines()) >= least:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
        assert partial.exists() != output.exists()
    if not output.exists():
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert "going on with the interrupted run" in done.stdout
        assert "slices are measured already" in done.stdout
    assert not partial.exists()
    one, other = _contents(whole), _contents(output)
    assert one == other
    np.testing.assert_array_equal(open_volume(whole).slice_mean, open_volume(output).slice_mean)


def test_other_options_start_afresh(shifted, tmp_path, monkeypatch, capsys):
    from vemseg_jax.data.store.volume_writer import VolumeWriter

    def fail(self, z, plane):
        raise KeyboardInterrupt

    output = tmp_path / "out.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(VolumeWriter, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            preprocess(shifted, output, PreprocessOptions(histogram="equalize"))
    assert not output.exists()
    with pytest.raises(InputError, match="unfinished"):
        open_volume(output.with_name("out.zarr.partial"))
    preprocess(shifted, output, PreprocessOptions(histogram="clahe"))
    assert "starting afresh" in capsys.readouterr().out
    expected = preprocess(shifted, tmp_path / "e.zarr", PreprocessOptions(histogram="clahe"))
    np.testing.assert_array_equal(_read(output), _read(expected))


def test_predictions_and_training_scale(stack, tmp_path, capsys):
    from vemseg_jax.data.store.label_writer import create_label

    planes = np.repeat(np.repeat(stack[2][:3], 2, 1), 2, 2)
    path = stacks.write(tmp_path / "in.zarr", planes, downsample=4)
    with create_label(path, "nuclei_pred", kind="prediction", levels=(TRAINING,)) as label:
        label.write(0, TRAINING, np.zeros(open_volume(path).plane_shape(TRAINING), np.uint8))
    output = preprocess(path, tmp_path / "out.zarr", PreprocessOptions(histogram="equalize"))
    assert open_volume(output).label_names == ()
    assert "not carried over, predict again: nuclei_pred" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PreprocessOptions(), "nothing to do: give --align"),
        (PreprocessOptions(histogram="match"), "needs --reference_slice"),
        (PreprocessOptions(histogram="match", reference_slice=99), "has slices 0 to 23"),
        (PreprocessOptions(histogram="clahe", reference_slice=1), "leave it out"),
        (PreprocessOptions(histogram="clahe", clip_limit=2), "--clip_limit=2"),
        (PreprocessOptions(align=AlignOptions(max_shift=-1)), "--max_shift=-1"),
        (PreprocessOptions(align=AlignOptions(keep_trend=-1)), "--keep_trend=-1"),
    ],
)
def test_what_cannot_be_done_is_refused(shifted, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        preprocess(shifted, tmp_path / "out.zarr", options)
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written(shifted, tmp_path):
    options = PreprocessOptions(histogram="equalize")
    with pytest.raises(InputError, match="is also the --volume"):
        preprocess(shifted, shifted, options)
    with pytest.raises(InputError, match="lies within the --volume"):
        preprocess(shifted, shifted / "out.zarr", options)
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(InputError, match="exists already"):
        preprocess(shifted, tmp_path / "out.zarr", options)


def test_stacks_that_cannot_be_aligned(stack, tmp_path):
    one = stacks.write(tmp_path / "one.zarr", stack[2][:1])
    options = PreprocessOptions(align=AlignOptions())
    with pytest.raises(InputError, match="has one slice"):
        preprocess(one, tmp_path / "out.zarr", options)
    rng = np.random.default_rng(0)
    noise = stacks.write(tmp_path / "n.zarr", rng.integers(0, 256, (4, 80, 90), np.uint8))
    with pytest.raises(InputError, match="no two slices match"):
        preprocess(noise, tmp_path / "out.zarr", options)
    wide = stack[0][:12]
    shifts = np.stack([4 * np.arange(12), 4 * np.arange(12)], -1)
    apart = np.stack([wide[z, dy : dy + 72, dx : dx + 72] for z, (dy, dx) in enumerate(shifts)])
    apart = stacks.write(tmp_path / "a.zarr", np.clip(apart, 0, 255).astype(np.uint8))
    with pytest.raises(InputError, match=r"share 2. x 2. pixels of 72 x 72.*furthest apart"):
        preprocess(apart, tmp_path / "out.zarr", options)
    assert not (tmp_path / "out.zarr").exists()
