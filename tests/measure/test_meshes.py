import numpy as np
import pytest
import trimesh

from tests.measure.shapes import ellipsoid
from vemseg_jax.measure.meshes import ObjectGrid, mesh_micrometres, signed_volume, write_mesh

VOXEL = (50.0, 20.0, 20.0)


def collected(mask, *, planes, cells=10**9, low=(0, 0, 0)):
    high = np.array(low) + mask.shape
    grid = ObjectGrid(low, high, cells=cells, voxel_size=VOXEL)
    for z in range(0, len(mask), planes):
        grid.add(mask[z : z + planes], z=low[0] + z)
    return grid


def body(grid):
    vertices, faces = grid.mesh()
    mesh = mesh_micrometres(vertices * np.array(VOXEL) / 1000, faces)
    return mesh, trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("planes", [1, 4, 40])
@pytest.mark.parametrize("cells", [10**9, 8000, 900])
def test_coarser_cells_keep_place_and_volume(planes, cells):
    axes = np.array([900.0, 700.0, 500.0])
    mask = ellipsoid((40, 75, 55), VOXEL, (960.0, 740.0, 540.0), axes)
    low = (7, 11, 13)
    _, mesh = body(collected(mask, planes=planes, cells=cells, low=low))
    assert mesh.is_watertight
    expected = 4 / 3 * np.pi * axes.prod() / 1e9
    assert mesh.volume == pytest.approx(expected, rel=0.02 if cells > 1000 else 0.06)
    centre = (np.array([960.0, 740.0, 540.0]) + np.array(low) * VOXEL)[::-1] / 1000
    np.testing.assert_allclose(mesh.center_mass, centre, atol=0.01)


def test_fewer_cells_make_smaller_meshes():
    mask = ellipsoid((40, 75, 55), VOXEL, (960.0, 740.0, 540.0), (900.0, 700.0, 500.0))
    sizes = [len(body(collected(mask, planes=9, cells=n))[0].faces) for n in (10**9, 8000, 900)]
    assert sizes[0] > 3 * sizes[1] > 9 * sizes[2]


@pytest.mark.parametrize("cells", [10**9, 60])
def test_ragged_objects_are_closed_too(cells):
    rng = np.random.default_rng(0)
    for density in (0.2, 0.5, 0.8):
        mask = rng.random((7, 9, 8)) < density
        mesh, checked = body(collected(mask, planes=2, cells=cells))
        assert checked.is_watertight
        assert signed_volume(mesh.vertices, mesh.faces) > 0


def test_a_single_voxel_and_what_fills_no_cell():
    _, voxel = body(collected(np.ones((1, 1, 1), bool), planes=1))
    assert voxel.is_watertight
    sparse = np.zeros((8, 8, 8), bool)
    sparse[::7, ::7, ::7] = True
    assert body(collected(sparse, planes=8, cells=8))[1].is_watertight


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_files_hold_the_mesh(tmp_path, suffix):
    mesh, _ = body(collected(ellipsoid((20, 40, 40), VOXEL, (480, 390, 390), (400,) * 3), planes=6))
    path = tmp_path / f"mesh.{suffix}"
    write_mesh(path, mesh)
    back = trimesh.load(path)
    assert len(back.faces) == len(mesh.faces)
    assert back.volume == pytest.approx(signed_volume(mesh.vertices, mesh.faces), rel=1e-4)
    np.testing.assert_allclose(back.bounds, [mesh.vertices.min(0), mesh.vertices.max(0)], atol=1e-5)
    if suffix == "ply":
        assert path.read_bytes().startswith(b"ply\nformat binary_little_endian")
