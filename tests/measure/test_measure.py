import csv
import dataclasses
import json
import math
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import trimesh

from tests.measure.shapes import ellipsoid, ellipsoid_surface, write_labels
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.errors import InputError
from vemseg_jax.measure import measure as measure_module
from vemseg_jax.measure import selection
from vemseg_jax.measure.measure import measure
from vemseg_jax.measure.options import Options

SHAPE, VOXEL = (40, 90, 130), (100.0, 50.0, 50.0)
# Centre and half-axes in nm, zyx: two whole nuclei, one cut by the last slice.
NUCLEI = [
    ((1500.0, 1500.0, 1500.0), (1100.0, 1300.0, 900.0)),
    ((2000.0, 2000.0, 4600.0), (1400.0, 1000.0, 1200.0)),
    ((3900.0, 3600.0, 2000.0), (1000.0, 700.0, 1100.0)),
]
# One and two in the first two nuclei, one in none.
NUCLEOLI = [
    ((1500.0, 1400.0, 1500.0), (400.0, 400.0, 400.0)),
    ((1700.0, 2000.0, 4200.0), (350.0, 300.0, 400.0)),
    ((2500.0, 2000.0, 5000.0), (400.0, 300.0, 350.0)),
    ((700.0, 600.0, 5800.0), (400.0, 300.0, 300.0)),
]
OPTIONS = Options(nuclei="nuclei_pred", nucleoli="nucleoli_pred", min_nucleus_um3=0.5)


def bodies(entries, shape=SHAPE, voxel=VOXEL):
    labels = np.zeros(shape, np.uint8)
    for centre, axes in entries:
        labels[ellipsoid(shape, voxel, centre, axes)] = 1
    return labels


def content(axes):
    """µm³ of an ellipsoid with half-axes in nm."""
    return 4 / 3 * math.pi * math.prod(axes) / 1e9


@pytest.fixture(scope="module")
def labels():
    nuclei, nucleoli = bodies(NUCLEI), bodies(NUCLEOLI)
    nuclei[0, 85, 120] = 1  # a speck
    nucleoli[30, 10, 10] = 1
    return {"nuclei_pred": nuclei, "nucleoli_pred": nucleoli}


@pytest.fixture(scope="module")
def volume(labels, tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("volume") / "cells.zarr", labels, voxel_size=VOXEL)


@pytest.fixture(scope="module")
def result(volume, tmp_path_factory):
    options = dataclasses.replace(OPTIONS, meshes="ply", outside="flag")
    return measure(volume, options, output=tmp_path_factory.mktemp("out") / "cells")


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_shapes_of_known_ellipsoids(result):
    assert [one.body.touches_border for one in result.nuclei] == [False, False, True]
    for one, (centre, axes) in zip(result.nuclei[:2], NUCLEI, strict=False):
        body = one.body
        volume, surface = content(axes), ellipsoid_surface(axes) / 1e6
        assert body.volume_um3 == pytest.approx(volume, rel=0.01)
        assert body.surface_um2 == pytest.approx(surface, rel=0.02)
        round_one = math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface
        assert body.sphericity == pytest.approx(round_one, rel=0.02)
        np.testing.assert_allclose(np.array(body.centroid_um) * 1000, centre, atol=15)
        for a, (low, high) in enumerate(zip(body.low, body.high, strict=True)):
            assert low == math.ceil((centre[a] - axes[a]) / VOXEL[a])
            assert high == math.floor((centre[a] + axes[a]) / VOXEL[a]) + 1


def test_nucleoli_go_to_their_nuclei(result):
    assert [one.nucleus for one in result.nucleoli] == [None, 1, 2, 2]
    assert [len(one.nucleoli) for one in result.nuclei] == [1, 2, 0]
    ratio = result.nuclei[1].nucleoli_volume_um3 / result.nuclei[1].body.volume_um3
    expected = sum(content(axes) for _, axes in NUCLEOLI[1:3]) / content(NUCLEI[1][1])
    assert ratio == pytest.approx(expected, rel=0.04)


def test_tables(result):
    nuclei, nucleoli = (read(result.output / f"{n}.csv") for n in ("nuclei", "nucleoli"))
    assert [row["nucleus"] for row in nuclei] == ["1", "2", "3"]
    assert [row["touches_border"] for row in nuclei] == ["false", "false", "true"]
    assert [row["nucleoli"] for row in nuclei] == ["1", "2", "0"]
    assert float(nuclei[1]["nucleoli_to_nucleus"]) == pytest.approx(
        sum(float(r["volume_um3"]) for r in nucleoli if r["nucleus"] == "2")
        / float(nuclei[1]["volume_um3"]),
        abs=1e-5,
    )
    assert [row["outside"] for row in nucleoli] == ["true", "false", "false", "false"]
    assert float(nuclei[0]["x_um"]) == pytest.approx(1.5, abs=0.02)
    assert (nuclei[2]["z_stop"], nuclei[2]["voxels"]) == ("40", str(result.nuclei[2].body.voxels))
    summary = json.loads((result.output / "summary.json").read_text())
    assert summary["found"]["nuclei"] == 3
    assert summary["found"]["nuclei_whole"] == 2
    assert summary["found"]["nucleoli_outside"] == 1
    assert summary["left_out"] == {"nuclei_too_small": 1, "nucleoli_too_small": 1}
    assert summary["warnings"] == []


def test_meshes_are_closed_and_in_place(result):
    for structure, every in (("nucleus", result.nuclei), ("nucleolus", result.nucleoli)):
        for one in every:
            mesh = trimesh.load(result.output / "meshes" / f"{structure}_{one.body.id:04d}.ply")
            assert mesh.is_watertight
            assert mesh.is_winding_consistent
            assert mesh.volume == pytest.approx(one.body.volume_um3, rel=0.03)
            np.testing.assert_allclose(mesh.center_mass[::-1], one.body.centroid_um, atol=0.03)
    assert len(list((result.output / "meshes").iterdir())) == 7


def test_picture(result):
    pixels = matplotlib.image.imread(result.output / "rendering.png")
    assert min(pixels.shape[:2]) > 800
    red, green, blue = np.moveaxis(pixels[..., :3], -1, 0)
    assert ((red > 0.5) & (green < 0.3) & (blue < 0.6)).sum() > 200  # nucleoli
    assert ((red > 0.9) & (green > 0.4) & (blue < 0.35)).sum() > 100  # the one outside


@pytest.mark.parametrize("planes", [1, 3, 17])
def test_slabs_change_nothing(volume, result, tmp_path, planes):
    pixels = SHAPE[1] * SHAPE[2] * 2
    options = dataclasses.replace(
        OPTIONS, outside="flag", memory_bytes=int((28 + 16 * planes + 1) * pixels / 0.75)
    )
    again = measure(volume, options, output=tmp_path / "out")
    for name in ("nuclei.csv", "nucleoli.csv"):
        assert (again.output / name).read_text() == (result.output / name).read_text()


def test_outside_dropped(volume, tmp_path):
    result = measure(volume, dataclasses.replace(OPTIONS, meshes="obj"), output=tmp_path / "out")
    assert [one.nucleus for one in result.nucleoli] == [1, 2, 2]
    assert "left out outside nuclei: 1" in result.text
    names = sorted(f.name for f in (result.output / "meshes").iterdir())
    assert names == [
        *(f"nucleolus_{i:04d}.obj" for i in (2, 3, 4)),
        *(f"nucleus_{i:04d}.obj" for i in (1, 2, 3)),
    ]
    assert trimesh.load(result.output / "meshes" / names[0]).is_watertight


def test_less_than_half_inside_is_outside(tmp_path):
    nuclei, nucleoli = np.zeros((2, 8, 24, 24), np.uint8)
    nuclei[:, :10], nuclei[:, 12:] = 1, 1
    nucleoli[2:6, 6:12, 4:8] = 1  # 4 of 6 rows in the first
    nucleoli[2:6, 7:15, 14:18] = 1  # 3 rows in each of 8
    path = write_labels(tmp_path / "v.zarr", {"a": nuclei, "b": nucleoli}, voxel_size=VOXEL)
    result = measure(path, Options(nuclei="a", nucleoli="b", outside="flag", min_nucleus_um3=0.01))
    assert result.output == tmp_path / "v-measurement"
    assert [one.nucleus for one in result.nucleoli] == [1, None]
    assert [round(one.inside, 4) for one in result.nucleoli] == [0.6667, 0.375]


def test_levels_agree(tmp_path):
    shape, voxel = (40, 360, 360), (100.0, 12.5, 12.5)
    labels = {
        "nuclei_pred": bodies([((2000.0, 2200.0, 2300.0), (1300.0, 1500.0, 1700.0))], shape, voxel)
    }
    path = write_labels(tmp_path / "v.zarr", labels, voxel_size=voxel, downsample=4)
    coarse, fine = (
        measure(path, Options(nuclei="nuclei_pred", level=level), output=tmp_path / str(level))
        .nuclei[0]
        .body
        for level in (None, "full")
    )
    assert coarse.voxels * 14 < fine.voxels
    assert coarse.volume_um3 == pytest.approx(fine.volume_um3, rel=0.005)
    assert coarse.surface_um2 == pytest.approx(fine.surface_um2, rel=0.02)
    np.testing.assert_allclose(coarse.centroid_um, fine.centroid_um, atol=0.01)
    np.testing.assert_allclose(coarse.low, fine.low, atol=4)
    np.testing.assert_allclose(coarse.high, fine.high, atol=4)


def test_unlabelled_voxels_are_a_border(tmp_path, labels):
    nuclei = labels["nuclei_pred"].copy()
    nuclei[:, :, 15:20] = 255
    path = write_labels(tmp_path / "v.zarr", {"n": nuclei}, voxel_size=VOXEL)
    result = measure(path, Options(nuclei="n"))
    assert [one.body.touches_border for one in result.nuclei] == [True, False, True]
    assert result.nuclei[0].nucleoli is None
    assert read(result.output / "nuclei.csv")[0]["nucleoli"] == ""
    assert not (result.output / "nucleoli.csv").exists()


def test_gaps_are_refused_and_a_range_measures(tmp_path, labels):
    covered = {"nuclei_pred": [*range(12), *range(14, 20), *range(21, 40)]}
    path = write_labels(tmp_path / "v.zarr", labels, voxel_size=VOXEL, covered=covered)
    with pytest.raises(InputError, match=r"'nuclei_pred' lacks slices 12:14, 20 .*z_range=21:40"):
        measure(path, OPTIONS)
    with pytest.raises(InputError, match=r"--z_range=10:20: .*lacks slices 12:14; it has 0:12"):
        measure(path, dataclasses.replace(OPTIONS, z_range=(10, 20)))
    result = measure(path, dataclasses.replace(OPTIONS, z_range=(21, 40)))
    second = result.nuclei[0].body
    assert second.touches_border
    assert second.low[0] == 21
    assert second.centroid_um[0] > 2.1


def test_labels_that_cover_different_slices(tmp_path, labels):
    covered = {"nucleoli_pred": range(30)}
    path = write_labels(tmp_path / "v.zarr", labels, voxel_size=VOXEL, covered=covered)
    with pytest.raises(InputError, match=r"'nuclei_pred' has 0:40, 'nucleoli_pred' has 0:30"):
        measure(path, OPTIONS)


def test_empty_labels_are_a_result(tmp_path):
    nothing = np.zeros((5, 30, 30), np.uint8)
    path = write_labels(tmp_path / "v.zarr", {"a": nothing, "b": nothing}, voxel_size=VOXEL)
    result = measure(path, Options(nuclei="a", nucleoli="b", meshes="ply"))
    assert read(result.output / "nuclei.csv") == read(result.output / "nucleoli.csv") == []
    assert (result.output / "nuclei.csv").read_text().startswith("nucleus,volume_um3,")
    assert (result.output / "rendering.png").stat().st_size > 1000
    assert "warning: no nuclei in 'a'; the label is empty" in result.text


def test_filters_that_leave_nothing_say_so(volume, tmp_path):
    options = dataclasses.replace(OPTIONS, min_nucleus_um3=1e6)
    result = measure(volume, options, output=tmp_path / "out")
    assert (result.nuclei, result.nucleoli) == ((), ())
    assert "of at least 1e+06 µm³; 4 are smaller, see --min_nucleus_um3" in result.text


def test_most_nucleoli_outside_is_suspicious(tmp_path, labels):
    hollow = labels["nuclei_pred"] * (1 - labels["nucleoli_pred"])
    path = write_labels(tmp_path / "v.zarr", {**labels, "nuclei_pred": hollow}, voxel_size=VOXEL)
    assert "warning: 4 of 4 nucleoli are outside nuclei" in measure(path, OPTIONS).text


def test_output_is_whole_or_not_there(volume, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    measure(volume, OPTIONS, output=folder)
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    with pytest.raises(InputError, match=r"--output=.*exists; name another"):
        measure(volume, OPTIONS, output=folder)

    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(measure_module, "render", fail)
        with pytest.raises(OSError, match="disk full"):
            measure(volume, OPTIONS, output=folder, overwrite=True)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    options = dataclasses.replace(OPTIONS, outside="flag")
    assert len(measure(volume, options, output=folder, overwrite=True).nucleoli) == 4
    assert (folder / "nucleoli.csv").read_bytes() != before["nucleoli.csv"]


def test_other_folders_are_not_overwritten(volume, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no earlier measurement"):
        measure(volume, OPTIONS, output=tmp_path / "thesis", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"nuclei": "nucleus"},
            "--nuclei=nucleus: .*no such label; it has: nuclei_pred, nucleoli_",
        ),
        ({"nucleoli": "spots"}, "--nucleoli=spots: .*no such label"),
        ({"nucleoli": "nuclei_pred"}, "--nucleoli=nuclei_pred: the same label as --nuclei"),
        ({"z_range": (30, 50)}, "--z_range=30:50: the volume has slices 0:40"),
        ({"z_range": (7, 7)}, "--z_range=7:7: the volume has slices 0:40"),
        (
            {"memory_bytes": 1000},
            "--memory_gib: slices of 90 x 130 pixels take at least --memory_gib=0.01",
        ),
        ({"min_nucleus_um3": -1.0}, "--min_nucleus_um3=-1.0"),
        ({"min_nucleolus_um3": math.nan}, "--min_nucleolus_um3=nan"),
    ],
)
def test_bad_input(volume, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        measure(volume, dataclasses.replace(OPTIONS, **changes), output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_probabilities_are_no_mask(tmp_path, labels):
    path = write_labels(tmp_path / "v.zarr", labels, voxel_size=VOXEL)
    with create_label(path, "nuclei_prob", kind="probability"):
        pass
    with pytest.raises(InputError, match="--nuclei=nuclei_prob: holds probabilities; give the"):
        measure(path, dataclasses.replace(OPTIONS, nuclei="nuclei_prob", nucleoli=None))


@pytest.mark.parametrize(
    ("longest", "labels", "advice"),
    [
        ((21, 40), (), "--z_range=21:40"),
        (None, (), "predict the same slices"),
        # Seven slices drawn here and there: no run of them is worth measuring.
        ((0, 1), ("nuclei",), "predict all of them with vemseg-predict"),
        ((0, 4), ("nuclei", "nuclei_pred"), "measure the prediction, --nuclei=nuclei_pred"),
    ],
)
def test_what_is_advised_on_gaps(longest, labels, advice):
    volume = SimpleNamespace(label_names=labels)
    text = selection._advice(volume, "nuclei", longest)
    assert advice in text and "--z_range=0:" not in text
