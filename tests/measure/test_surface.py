import numpy as np
import pytest

from tests.measure.shapes import digitised, ellipsoid_surface
from vemseg_jax.measure.surface import FIRST_ID, UNLABELLED_ID, CrossingCounter, choose_directions

VOXELS = [(50.0, 16.0, 16.0), (50.0, 40.0, 40.0), (16.0, 64.0, 64.0), (10.0, 10.0, 10.0)]


def count(ids, directions, objects):
    counter = CrossingCounter(directions, objects=objects, plane=ids.shape[1:])
    for plane in ids:
        counter.add(plane)
    counter.finish()
    return counter


def surface(mask, voxel_size):
    directions = choose_directions(voxel_size)
    counter = count(mask.astype(np.uint32) * FIRST_ID, directions, 1)
    return float(directions.surface(counter.crossings)[0])


@pytest.mark.parametrize("voxel_size", VOXELS)
def test_spheres(voxel_size):
    radius = 10 * max(voxel_size)
    axes = (radius,) * 3
    found = surface(digitised(axes, voxel_size, seed=None), voxel_size)
    assert found == pytest.approx(ellipsoid_surface(axes), rel=0.01)


@pytest.mark.parametrize("voxel_size", VOXELS)
@pytest.mark.parametrize("shape", [(12, 12, 5), (12, 5, 5), (12, 8, 5)])
def test_ellipsoids_in_random_poses(voxel_size, shape):
    axes = tuple(max(voxel_size) * a for a in shape)
    found = surface(digitised(axes, voxel_size, seed=1), voxel_size)
    assert found == pytest.approx(ellipsoid_surface(axes), rel=0.02)


def test_coarse_slices():
    """5 times thicker than wide: half-axes of 3 to 6 slices."""
    voxel_size = (320.0, 64.0, 64.0)
    axes = (1920.0, 1280.0, 960.0)
    found = surface(digitised(axes, voxel_size, seed=2), voxel_size)
    assert found == pytest.approx(ellipsoid_surface(axes), rel=0.03)


@pytest.mark.parametrize("voxel_size", [*VOXELS, (320.0, 64.0, 64.0), (4.0, 16.0, 16.0)])
def test_directions_cover_the_sphere(voxel_size):
    directions = choose_directions(voxel_size)
    size = np.array(voxel_size)
    lengths = np.linalg.norm(directions.steps * size, axis=1)
    assert (np.abs(directions.steps[:3]).sum(axis=1) == 1).all()
    shares = directions.weights * lengths / (2 * size.prod())
    assert shares.sum() == pytest.approx(1)
    assert shares.max() < 0.17
    assert shares.min() > 0.01
    unit = directions.steps * size / lengths[:, None]
    np.testing.assert_allclose((unit * shares[:, None]).T @ unit, np.eye(3) / 3, atol=1e-12)


def test_crossings_are_those_of_every_pair_of_voxels():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 5, (6, 7, 8)).astype(np.uint32) * (rng.random((6, 7, 8)) < 0.5)
    directions = choose_directions((16.0, 40.0, 40.0))
    counter = count(ids.astype(np.uint32), directions, 3)
    margin = np.abs(directions.steps).max(axis=0)
    padded = np.pad(ids, [(m, m) for m in margin])
    for d, step in enumerate(directions.steps):
        moved = np.roll(padded, step, axis=(0, 1, 2))
        for row in range(3):
            expected = ((padded == row + FIRST_ID) != (moved == row + FIRST_ID)).sum()
            assert counter.crossings[row, d] == expected
    assert directions.planes > 1


def test_beside_unlabelled():
    ids = np.zeros((5, 6, 9), np.uint32)
    ids[2, 3, 2], ids[3, 3, 2] = 2, UNLABELLED_ID
    ids[2, 3, 4], ids[3, 4, 4] = 3, UNLABELLED_ID
    ids[2, 3, 7], ids[2, 3, 8] = 4, UNLABELLED_ID
    counter = count(ids, choose_directions((50.0, 16.0, 16.0)), 3)
    assert counter.beside_unlabelled.tolist() == [True, False, True]
