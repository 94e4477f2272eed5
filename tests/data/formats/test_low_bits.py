"""Values of 8 or 12 bit in a type of 16: the range that is there counts, not that of the type."""

import dataclasses

import numpy as np
import pytest

from vemseg_jax.data.check.plot import plot_report
from vemseg_jax.data.check.report import report_text
from vemseg_jax.data.check.volume import CheckOptions, check_volume
from vemseg_jax.data.preprocess import equalization
from vemseg_jax.data.store.normalization import combine, slice_statistics
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.view.layers import contrast

SIZE = 96
CONTAINERS = {"8 of 16": 1, "12 of 16": 16, "16 of 16": 257}


def _image(z):
    rng = np.random.default_rng(z)
    y, x = np.mgrid[:SIZE, :SIZE]
    plane = 120 + 40 * np.sin(x / 9 + z) * np.cos(y / 7) + 8 * rng.standard_normal((SIZE, SIZE))
    return np.clip(plane, 1, 254).astype(np.uint8)


def _share(plane):
    return plane / np.iinfo(plane.dtype).max


@pytest.mark.parametrize("factor", CONTAINERS.values(), ids=CONTAINERS)
def test_histogram_methods_give_the_same_in_every_container(factor):
    small, large = _image(0), _image(0).astype(np.uint16) * np.uint16(factor)
    np.testing.assert_allclose(
        _share(equalization.equalize(large)), _share(equalization.equalize(small)), atol=1 / 255
    )
    np.testing.assert_allclose(
        _share(equalization.clahe(large, clip_limit=0.01)),
        _share(equalization.clahe(small, clip_limit=0.01)),
        atol=1 / 255,
    )
    matched = equalization.matcher(_image(1).astype(np.uint16) * np.uint16(factor))(large)
    expected = equalization.matcher(_image(1))(small)
    np.testing.assert_allclose(matched / factor, expected, atol=0.5)


@pytest.mark.parametrize("factor", CONTAINERS.values(), ids=CONTAINERS)
def test_normalised_values_do_not_depend_on_the_container(factor):
    small, large = _image(0), _image(0).astype(np.uint16) * np.uint16(factor)

    def normalised(plane):
        mean, std = slice_statistics(plane)
        values = combine([mean], [std], dtype_max=int(np.iinfo(plane.dtype).max))
        return values(plane.astype(np.float32))

    np.testing.assert_allclose(normalised(large), normalised(small), atol=1e-4)


def _volume(path, factor, images=_image):
    with create_volume(
        path, shape=(24, SIZE, SIZE), dtype=np.uint16, voxel_size=(50, 16, 16), downsample=1
    ) as writer:
        for z in range(24):
            writer.write(z, images(z).astype(np.uint16) * np.uint16(factor))
    return path


def _check(path):
    options = CheckOptions(crop_size=32, memory=2**30)
    return check_volume(path, options)


@pytest.mark.parametrize("factor", [1, 16])
def test_the_check_tells_the_range_and_sees_what_is_clipped_at_its_end(tmp_path, factor):
    report = _check(_volume(tmp_path / "v.zarr", factor))
    least, greatest = report.images.levels
    assert greatest <= 254 * factor and f"values {least} to {greatest}," in report_text(report)
    assert not [f for f in report.findings if f.topic.startswith("saturated")]
    assert "mean 0.000 to" not in report_text(report)

    def clipped(z):
        return np.where(np.arange(SIZE) < SIZE // 6, 255, _image(z))

    report = _check(_volume(tmp_path / "c.zarr", factor, clipped))
    assert [f for f in report.findings if f.topic == "saturated_white"]


def test_the_plot_and_the_viewer_show_the_range(tmp_path):
    path = _volume(tmp_path / "v.zarr", 16)
    report = _check(path)
    plot_report(tmp_path / "p.png", report, path)
    low, high = contrast(open_volume(path))
    assert 0 <= low < 120 * 16 < high <= 4095
    assert dataclasses.asdict(report.images)["levels"][1] <= 4095
