import itertools

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from vemseg_jax.data.phantom import texture as phantom_texture
from vemseg_jax.data.phantom.stack import PRESETS, Phantom, PhantomConfig, write_tiff_stack
from vemseg_jax.data.store.downsample import downsample_image, downsample_mask
from vemseg_jax.errors import InputError

TINY = {"shape": (4, 96, 128), "voxel_size": (40.0, 100.0, 100.0)}


@pytest.fixture(scope="module", params=sorted(PRESETS))
def field(request):
    """Every eighth slice of the default field."""
    phantom = Phantom(PhantomConfig(preset=request.param))
    return [phantom.slice(z) for z in range(4, 48, 8)]


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def best_threshold_dice(values, mask):
    order = np.argsort(values, axis=None)
    hits = np.cumsum(mask.ravel()[order])
    found = np.arange(1, hits.size + 1)
    dark = 2 * hits / (found + hits[-1])
    light = 2 * (hits[-1] - hits) / (hits.size - found + hits[-1])
    return max(dark.max(), light.max())


def test_same_configuration_same_slices_in_any_order():
    first, second = (Phantom(PhantomConfig(**TINY)) for _ in range(2))
    forward = [first.slice(z) for z in range(4)]
    backward = [second.slice(z) for z in (3, 2, 1, 0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_other_seeds_and_presets_make_other_tissue():
    configs = [PhantomConfig(**TINY), PhantomConfig(seed=1, **TINY)]
    configs += [PhantomConfig(preset=name, **TINY) for name in ("biopsy2", "biopsy3")]
    made = [Phantom(config).slice(0) for config in configs]
    for a, b in itertools.combinations(made, 2):
        assert dice(a.nuclei == 1, b.nuclei == 1) < 0.9
        assert np.mean(a.image != b.image) > 0.5


def test_masks_are_zero_and_one_and_nucleoli_lie_inside_nuclei(field):
    for made in field:
        assert made.image.shape == made.nuclei.shape == made.nucleoli.shape == (768, 1024)
        assert {a.dtype for a in made} == {np.dtype(np.uint8)}
        assert set(np.unique(made.nuclei)) == {0, 1}
        assert set(np.unique(made.nucleoli)) <= {0, 1}
        core = ndimage.binary_erosion(made.nuclei, iterations=3, border_value=1)
        assert not np.any(made.nucleoli[~core])


def test_cover_is_that_of_the_biopsies(field):
    nuclei = [made.nuclei.mean() for made in field]
    nucleoli = [made.nucleoli.mean() for made in field]
    assert min(nuclei) > 0.15 and max(nuclei) < 0.27
    assert 0.003 < np.mean(nucleoli) < 0.01
    assert np.count_nonzero(nucleoli) > len(field) / 2
    assert all(2 <= ndimage.label(made.nuclei)[1] <= 7 for made in field)


def test_full_size_slice_has_a_few_large_nuclei():
    config = PhantomConfig(shape=(800, 1000, 1500), voxel_size=(4.0, 16.0, 16.0))
    made = Phantom(config).slice(400)
    assert 0.15 < made.nuclei.mean() < 0.27
    assert 3 <= ndimage.label(made.nuclei)[1] <= 9


def test_no_threshold_finds_nuclei_even_after_a_gaussian(field):
    images = [downsample_image(made.image).astype(np.float32) for made in field]
    nuclei = np.stack([downsample_mask(made.nuclei) for made in field]) == 1
    for sigma in (0, 1, 2, 4, 8, 16, 32):
        smooth = np.stack([ndimage.gaussian_filter(image, sigma) for image in images])
        assert best_threshold_dice(smooth, nuclei) < 0.57, sigma


def test_nuclei_change_smoothly_from_slice_to_slice():
    config = PhantomConfig(shape=(6, 384, 512), voxel_size=(40.0, 32.0, 32.0))
    phantom = Phantom(config)
    stack = [phantom.slice(z) for z in range(6)]
    for a, b in itertools.pairwise(stack):
        assert 0.95 < dice(a.nuclei == 1, b.nuclei == 1) < 1
    # Neighbours show the same tissue, but their shot noise is their own.
    images = [ndimage.gaussian_filter(s.image.astype(np.float32), 3) for s in stack[:2]]
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.8
    fine = [s.image - ndimage.gaussian_filter(s.image.astype(np.float32), 1) for s in stack[:2]]
    assert np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1] < 0.6


def test_brightness_drifts_from_slice_to_slice():
    phantom = Phantom(PhantomConfig(shape=(40, 64, 64), voxel_size=(40.0, 64.0, 64.0)))
    means = np.array([phantom.slice(z).image.mean() for z in range(0, 40, 4)])
    assert 1 < means.std() < 20


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 300), (1, 257, 3)])
def test_any_size(shape):
    made = Phantom(PhantomConfig(shape=shape, voxel_size=(30.0, 10.0, 7.5))).slice(shape[0] - 1)
    assert made.image.shape == made.nuclei.shape == shape[1:]


def test_noise_is_standard_and_its_slope_is_right():
    grid = phantom_texture.PlaneGrid((400, 300), (10.0, 10.0), (5.0, 5.0))
    noise = phantom_texture.Noise(grid, seed=3, z=777.0, channel=9, spacing=(50.0, 50.0, 50.0))
    values = noise()
    assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1
    np.testing.assert_array_equal(noise(slice(100, 130)), values[100:130])
    for axis in (0, 1):
        slope = np.gradient(values, 10.0, axis=axis)[5:-5, 5:-5]
        error = noise(derivative=axis)[5:-5, 5:-5] - slope
        assert np.abs(error).max() < 0.1 * np.abs(slope).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "liver"}, "'liver' is unknown; choose from: biopsy1, biopsy2, biopsy3"),
        ({"shape": (0, 8, 8)}, "phantom shape"),
        ({"shape": (8, 8)}, "phantom shape"),
        ({"voxel_size": (40.0, -1.0, 16.0)}, "phantom voxel_size"),
        ({"voxel_size": (40.0, float("nan"), 16.0)}, "phantom voxel_size"),
        ({"seed": -1}, "phantom seed"),
    ],
)
def test_bad_configuration(options, message):
    with pytest.raises(InputError, match=message):
        PhantomConfig(**options)


def test_slice_outside_the_stack():
    with pytest.raises(InputError, match="slices 0 to 3"):
        Phantom(PhantomConfig(**TINY)).slice(4)


def test_tiff_stack_round_trip(tmp_path):
    phantom = Phantom(PhantomConfig(**TINY))
    folder = write_tiff_stack(phantom, tmp_path / "stack")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.tif"))
    assert len(names) == 12
    assert names[0] == "images/slice_0000.tif"
    assert names[4] == "truth/nuclei/nuclei_0000.tif"
    assert names[-1] == "truth/nucleoli/nucleoli_0003.tif"
    made = phantom.slice(2)
    for name, want in (
        ("images/slice_0002.tif", made.image),
        ("truth/nuclei/nuclei_0002.tif", made.nuclei),
        ("truth/nucleoli/nucleoli_0002.tif", made.nucleoli),
    ):
        np.testing.assert_array_equal(tifffile.imread(folder / name), want)


def test_existing_output_stays_unless_overwritten(tmp_path):
    phantom = Phantom(PhantomConfig(**TINY))
    folder = write_tiff_stack(phantom, tmp_path / "stack")
    with pytest.raises(InputError, match="exists already"):
        write_tiff_stack(phantom, folder)
    other = Phantom(PhantomConfig(seed=1, **TINY))
    write_tiff_stack(other, folder, overwrite=True)
    np.testing.assert_array_equal(
        tifffile.imread(folder / "images/slice_0000.tif"), other.slice(0).image
    )
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a phantom's folder"):
        write_tiff_stack(phantom, folder, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["stack"]


def test_interrupted_write_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    phantom = Phantom(PhantomConfig(**TINY))
    whole = phantom.slice

    def stops(z):
        if z == 2:
            assert [p.name for p in tmp_path.iterdir()] == ["stack.partial"]
            raise KeyboardInterrupt
        return whole(z)

    monkeypatch.setattr(phantom, "slice", stops)
    with pytest.raises(KeyboardInterrupt):
        write_tiff_stack(phantom, tmp_path / "stack")
    assert not (tmp_path / "stack").exists()
