"""Where labels lie in the images: by their record or a flag, or refused."""

import h5py
import mrcfile
import numpy as np
import pytest
import tensorstore as ts
import tifffile

from tests.data.formats.test_recorded_sizes import COSEM, n5, ome_zarr
from vemseg_jax.data.convert.label_placing import ALL, EVERYWHERE, LabelPlacing, Placement
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.formats.axes import GivenAxes
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

SHAPE = (6, 16, 20)
RANDOM = np.random.default_rng(1)
IMAGE = RANDOM.integers(1, 256, SHAPE, np.uint8)
WHOLE = (RANDOM.random((8, 24, 28)) < 0.5).astype(np.uint8)
SIZE = (200.0, 40.0, 40.0)
SHIFT = (2, 4, 8)


def precomputed(path, data, *, offset, resolution=(40, 40, 200)):
    """A neuroglancer volume; offset and resolution x first."""
    kind = "segmentation" if data.dtype != np.uint8 else "image"
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": kind, "data_type": str(data.dtype), "num_channels": 1},
        "scale_metadata": {
            "size": list(data.shape[::-1]),
            "encoding": "raw",
            "chunk_size": [32, 32, 8],
            "resolution": list(resolution),
            "voxel_offset": list(offset),
        },
    }
    ts.open(spec, create=True).result().write(data.T[..., None]).result()
    return path


def hdf5(path, data, **attributes):
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["data"].attrs.update(attributes)
    return path


def mrc(path, data, *, origin=(0, 0, 0), start=(0, 0, 0)):
    """An MRC file; origin in A and start in voxels, zyx."""
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.uint16))
        file.voxel_size = tuple(10 * size for size in SIZE[::-1])
        for axis, a, n in zip("zyx", origin, start, strict=True):
            file.header["origin"][axis] = a
            file.header[f"n{axis}start"] = n
    return path


def tiff(path, data, **metadata):
    options = {"imagej": True, "metadata": {"axes": "ZYX", **metadata}} if metadata else {}
    tifffile.imwrite(path, data, photometric="minisblack", **options)
    return path


def place(images, labels, **options):
    """Where the labels are placed."""
    placing = LabelPlacing(open_source(images), SIZE, **options)
    return placing.place("nuclei", open_source(labels, label=True))


PAIRS = {
    "OME-Zarr": lambda d, data, at: (
        ome_zarr(d / "i", IMAGE, scale=SIZE, translation=(400, 0, 0)),
        ome_zarr(
            d / "l",
            data,
            scale=(0.2, 0.04, 0.04),
            translation=[0.2 * (2 + at[0]), 0.04 * at[1], 0.04 * at[2]],
            units=("micrometer",) * 3,
        ),
    ),
    "OME-Zarr without units": lambda d, data, at: (
        ome_zarr(d / "i", IMAGE, scale=(1, 1, 1), units=(None,) * 3),
        ome_zarr(d / "l", data, scale=(1, 1, 1), units=(None,) * 3, translation=at),
    ),
    "OME-Zarr, all levels": lambda d, data, at: (
        ome_zarr(d / "i", IMAGE, scale=SIZE),
        ome_zarr(
            d / "l",
            data,
            scale=SIZE,
            whole=[
                {"type": "scale", "scale": [1, 1, 1]},
                {"type": "translation", "translation": [200 * at[0], 40 * at[1], 40 * at[2]]},
            ],
        )
        / "0",
    ),
    "precomputed": lambda d, data, at: (
        precomputed(d / "i", IMAGE, offset=(1000, 1000, 7)),
        precomputed(d / "l", data, offset=(1000 + at[2], 1000 + at[1], 7 + at[0])),
    ),
    "N5": lambda d, data, at: (
        n5(d / "i", attributes={"transform": COSEM}, data=IMAGE),
        n5(
            d / "l",
            attributes={"transform": {**COSEM, "translate": [200 * at[0], 40 * at[1], 40 * at[2]]}},
            data=data,
        ),
    ),
    "N5 of Paintera": lambda d, data, at: (
        n5(d / "i", attributes={"resolution": [40, 40, 200]}, data=IMAGE),
        n5(
            d / "l",
            attributes={
                "resolution": [40, 40, 200],
                "offset": [40 * at[2], 40 * at[1], 200 * at[0]],
            },
            data=data,
        ),
    ),
    "precomputed on OME-Zarr": lambda d, data, at: (
        ome_zarr(d / "i", IMAGE, scale=SIZE),
        precomputed(d / "l", data, offset=at[::-1]),
    ),
    "ImageJ": lambda d, data, at: (
        tiff(d / "i.tif", IMAGE, zorigin=-3, yorigin=-1),
        tiff(d / "l.tif", data, zorigin=-3 - at[0], yorigin=-1 - at[1], xorigin=-at[2]),
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("at", [SHIFT, (-2, -4, -8)])
def test_labels_lie_where_both_record(tmp_path, pair, at, capsys):
    images, labels = pair(tmp_path, WHOLE[:6, :16, :20], at)
    assert place(images, labels).offset == at
    assert "reaches beyond the images; that part is not used" in capsys.readouterr().out


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_labels_of_the_same_position_are_taken_whole(tmp_path, pair):
    assert place(*pair(tmp_path, WHOLE[:6, :16, :20], (0, 0, 0))) is EVERYWHERE


def test_cremi(tmp_path):
    """Raw data and labels, a smaller part of it, as CREMI lays them out."""
    labels = WHOLE[:3, :8, :9]
    images = hdf5(tmp_path / "i.h5", IMAGE, resolution=SIZE)
    path = hdf5(tmp_path / "l.h5", labels, resolution=SIZE, offset=(400.0, 160.0, 320.0))
    options = ConvertOptions(
        voxel_size=SIZE,
        axes="zyx",
        labels_axes={"nuclei": "zyx"},
        labels=[("nuclei", path)],
        downsample=1,
    )
    convert(images, tmp_path / "v.zarr", options)
    volume = open_volume(tmp_path / "v.zarr")
    expected = np.full(SHAPE, 255, np.uint8)
    expected[2:5, 4:12, 8:17] = labels
    np.testing.assert_array_equal(volume.label("nuclei", FULL).read().result(), expected)
    assert volume.labelled_slices("nuclei") == (2, 3, 4)


def test_what_a_placed_label_does_not_cover_is_unlabelled(tmp_path, capsys):
    images = ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)
    labels = WHOLE[2:8, 4:20, 8:28]
    path = ome_zarr(tmp_path / "l", labels, scale=SIZE, translation=(400, 160, 320))
    options = ConvertOptions(
        labels=[("nuclei", path)], ignore=path, ignore_dilation=1, downsample=1
    )
    convert(images, tmp_path / "v.zarr", options)
    volume = open_volume(tmp_path / "v.zarr")
    expected = np.full(SHAPE, 255, np.uint8)
    expected[2:, 4:, 8:] = labels[:4, :12, :12]
    np.testing.assert_array_equal(volume.label("nuclei", FULL).read().result(), expected)
    assert volume.labelled_slices("nuclei") == (2, 3, 4, 5)
    ignored = volume.label("ignore", FULL).read().result()
    # The mask grows after it is laid, beyond what its file covers.
    assert not ignored[:2].any() and not ignored[:, :3].any()
    np.testing.assert_array_equal(ignored[2:, 3, 8:] > 0, labels[:4, 0, :12] > 0)
    printed = capsys.readouterr().out
    where = "placed at voxel 2,4,8 (z,y,x; from what both record): slices 2-5, rows 4-15,"
    assert f"{where} columns 8-19; the rest is unlabelled" in printed
    assert f"{where} columns 8-19; nothing is ignored elsewhere" in printed


@pytest.mark.parametrize(
    ("translation", "message"),
    [
        ((100, 0, 0), r"begins at voxel 0.5,0,0 .*not a whole number of voxels apart"),
        ((0, 0, 40 * 20), r"begins at voxel 0,0,20 .*wholly outside their 6 x 16 x 20 voxels"),
        ((0, -40 * 16, 0), r"begins at voxel 0,-16,0 .*wholly outside"),
    ],
)
def test_positions_that_cannot_be_used_are_refused(tmp_path, translation, message):
    images = ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)
    path = ome_zarr(tmp_path / "l", WHOLE[:6, :16, :20], scale=SIZE, translation=translation)
    with pytest.raises(InputError, match=message + r".*--labels_offset=0,0,0"):
        place(images, path)
    assert place(images, path, offsets={ALL: (0, 0, 0)}) is EVERYWHERE
    assert place(images, path, offsets={"nuclei": (1, 0, -3)}).offset == (1, 0, -3)


def test_a_position_without_a_voxel_size_is_refused(tmp_path):
    images = ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)
    labels = hdf5(tmp_path / "l.h5", WHOLE[:6, :16, :20], offset=(400, 0, 0))
    placing = LabelPlacing(open_source(images), SIZE, labels_axes={ALL: "zyx"})
    with pytest.raises(InputError, match=r"a position that is no number of voxels .*a size or"):
        placing.place("nuclei", placing.open("nuclei", labels))


def test_mrc_origins_that_differ_are_refused(tmp_path):
    labels = WHOLE[:6, :16, :20]
    plain = mrc(tmp_path / "i.mrc", IMAGE)
    centred = mrc(tmp_path / "c.mrc", labels, origin=(-6000, -3200, -4000))
    also = mrc(tmp_path / "a.mrc", labels, start=(-3, -8, -10))
    moved = mrc(tmp_path / "m.mrc", labels, origin=(2000, 0, 0))
    assert place(plain, plain) is EVERYWHERE
    assert place(centred, also) is EVERYWHERE
    # One that records nothing says nothing.
    assert place(centred, plain) is EVERYWHERE
    with pytest.raises(InputError, match="programs differ in what they mean by it; say where"):
        place(centred, moved)
    assert place(centred, moved, offsets={ALL: (0, 0, 0)}) is EVERYWHERE


def test_a_position_beside_images_without_one_is_told(tmp_path, capsys):
    images = tiff(tmp_path / "i.tif", IMAGE)
    same = precomputed(tmp_path / "s", WHOLE[:6, :16, :20], offset=(9, 0, 5))
    assert place(images, same) is EVERYWHERE
    printed = capsys.readouterr().out
    assert "begins at voxel 5,0,9 (z,y,x), the images record no position; as both have" in printed
    smaller = precomputed(tmp_path / "m", WHOLE[:4, :16, :20], offset=(9, 0, 5))
    with pytest.raises(InputError, match=r"the images record no position; say where its first"):
        place(images, smaller)


def test_labels_of_other_voxels_are_refused(tmp_path, capsys):
    images = ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)
    coarse = ome_zarr(tmp_path / "c", WHOLE[:6, :16, :20], scale=(200, 80, 80))
    near = ome_zarr(tmp_path / "n", WHOLE[:6, :16, :20], scale=(200.9, 40.1, 39.9))
    unknown = ome_zarr(tmp_path / "u", WHOLE[:6, :16, :20], scale=(1, 1, 1), units=(None,) * 3)
    message = r"records voxels of 200,80,80 nm .*have 200,40,40 nm; resample .*--trust_flag"
    with pytest.raises(InputError, match=message):
        place(images, coarse)
    for path in (near, unknown):
        assert place(images, path) is EVERYWHERE
    assert "warning" not in capsys.readouterr().out
    place(images, coarse, trust_flag=True)
    # Images that record none are no second opinion.
    place(tiff(tmp_path / "i.tif", IMAGE), coarse)
    assert capsys.readouterr().out.count("those of the images are taken, 200,40,40 nm") == 2


@pytest.mark.parametrize("size", [(40, 8, 4), (1, 1, 2)])
def test_labels_of_other_voxels_without_a_unit_are_refused(tmp_path, size):
    labels = WHOLE[:6, :16, :20]
    images = hdf5(tmp_path / "i.h5", IMAGE, resolution=(40, 4, 4))
    placing = LabelPlacing(open_source(images, axes="zyx"), SIZE, labels_axes={ALL: "zyx"})
    for good in ((40, 4, 4), (1, 1, 1)):
        path = hdf5(tmp_path / "g.h5", labels, resolution=good)
        assert placing.place("nuclei", placing.open("nuclei", path)) is EVERYWHERE
    path = hdf5(tmp_path / "l.h5", labels, resolution=size)
    with pytest.raises(InputError, match=r"records voxels of .* of no unit .*have 40,4,4 of no"):
        placing.place("nuclei", placing.open("nuclei", path))


def test_a_folder_cannot_be_placed(tmp_path):
    images = tiff(tmp_path / "i.tif", IMAGE)
    (tmp_path / "l").mkdir()
    tifffile.imwrite(tmp_path / "l" / "l_3.tif", WHOLE[3, :16, :20])
    assert place(images, tmp_path / "l", offsets={ALL: (0, 1, 1)}) is EVERYWHERE
    with pytest.raises(InputError, match=r"--labels_offset=nuclei=….*is a folder"):
        place(images, tmp_path / "l", offsets={"nuclei": (0, 1, 1)})


CUBE = (RANDOM.random((8, 8, 8)) < 0.5).astype(np.uint8)


@pytest.mark.parametrize("shape", [(8, 8, 8), (6, 8, 8), (8, 8, 6), (8, 6, 8)])
def test_axes_of_labels_that_no_shape_tells_are_asked_for(tmp_path, shape):
    data = np.zeros(shape, np.uint8) + 9
    images = hdf5(tmp_path / "i.h5", data.T)
    labels = hdf5(tmp_path / "l.h5", data.T)
    source = open_source(images, axes="xyz")
    placing = LabelPlacing(source, SIZE, axes="xyz")
    message = r"shape \(. x . x .\) does not tell .*--labels_axes=xyz or --labels_axes=zyx"
    with pytest.raises(InputError, match=message):
        placing.open("nuclei", labels)
    assert LabelPlacing(source, SIZE, axes="xyz", labels_axes={ALL: "xyz"}).open("n", labels)


def test_axes_of_images_count_for_labels_where_the_shape_tells(tmp_path):
    images = hdf5(tmp_path / "i.h5", IMAGE.T)
    placing = LabelPlacing(open_source(images, axes="xyz"), SIZE, axes="xyz")
    labels = WHOLE[:6, :16, :20]
    source = placing.open("nuclei", hdf5(tmp_path / "l.h5", labels.T))
    np.testing.assert_array_equal(source.read(2), labels[2])
    with pytest.raises(InputError, match=r"--axes=xyz it has 20 x 16 x 6 voxels.*--labels_axes="):
        placing.open("nuclei", hdf5(tmp_path / "z.h5", labels))
    with pytest.raises(InputError, match=r"does not record .* such as --labels_axes=czyx"):
        placing.open("nuclei", hdf5(tmp_path / "c.h5", labels[None]))


def test_labels_have_axes_of_their_own(tmp_path):
    """Images of MATLAB, x first, and labels z first, both cubes."""
    images = hdf5(tmp_path / "i.h5", CUBE.T * 9 + 1)
    labels = hdf5(tmp_path / "l.h5", CUBE)
    options = ConvertOptions(
        voxel_size=SIZE,
        axes="xyz",
        labels_axes={"nuclei": "zyx", "ignore": "xyz"},
        labels=[("nuclei", labels)],
        ignore=images,
        downsample=1,
    )
    convert(images, tmp_path / "v.zarr", options)
    volume = open_volume(tmp_path / "v.zarr")
    np.testing.assert_array_equal(volume.image(FULL).read().result(), CUBE * 9 + 1)
    np.testing.assert_array_equal(volume.label("nuclei", FULL).read().result(), CUBE)


def test_axes_of_labels_against_their_record(tmp_path, capsys):
    images = ome_zarr(tmp_path / "i", CUBE + 1, scale=SIZE)
    labels = ome_zarr(tmp_path / "l", CUBE, scale=(40, 40, 40))
    source = open_source(images)
    # --axes is meant for the images: what labels record counts.
    assert LabelPlacing(source, SIZE, axes="xyz").open("n", labels).axes_from == "recorded as zyx"
    with pytest.raises(InputError, match=r"--labels_axes=xyz: .* records zyx;.*--trust_flag"):
        LabelPlacing(source, SIZE, labels_axes={ALL: "xyz"}).open("n", labels)
    placing = LabelPlacing(source, SIZE, labels_axes={ALL: "xyz"}, trust_flag=True)
    np.testing.assert_array_equal(placing.open("n", labels).read(1), CUBE.T[1])
    assert "--trust_flag: --labels_axes=xyz is taken" in capsys.readouterr().out


def test_labels_without_axes_beside_images_that_record_them(tmp_path):
    placing = LabelPlacing(open_source(ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)), SIZE)
    with pytest.raises(InputError, match=r"does not record which.*such as --labels_axes=zyx"):
        placing.open("nuclei", hdf5(tmp_path / "l.h5", IMAGE))


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("labels_axes", {"nucleoli": "zyx"}, "--labels_axes=nucleoli=…: no structure"),
        ("labels_offset", {"nucleoli": (0, 0, 0)}, "--labels_offset=nucleoli=…: no structure"),
        ("labels_axes", {"ignore": "zyx"}, "needs --ignore"),
    ],
)
def test_flags_of_no_structure_are_refused(tmp_path, flag, value, message):
    images = ome_zarr(tmp_path / "i", IMAGE, scale=SIZE)
    with pytest.raises(InputError, match=message):
        convert(images, tmp_path / "v.zarr", ConvertOptions(downsample=1, **{flag: value}))


def test_tiff_labels_are_slices_whatever_the_axes_of_the_images(tmp_path):
    images = hdf5(tmp_path / "i.h5", CUBE.T + 1)
    placing = LabelPlacing(open_source(images, axes="xyz"), SIZE, axes="xyz")
    source = placing.open("nuclei", tiff(tmp_path / "l.tif", CUBE))
    np.testing.assert_array_equal(source.read(1), CUBE[1])
    with pytest.raises(InputError, match="--labels_axes=xyz: only zyx can be read"):
        open_source(tmp_path / "l.tif", label=True, axes=GivenAxes("xyz", flag="labels_axes"))


def test_pairs_and_planes_of_a_placement():
    placement = Placement((-1, 2, -3), (4, 6, 5))
    assert placement.pairs(3) == {0: 1, 1: 2}
    plane = np.arange(1, 21, dtype=np.uint8).reshape(4, 5)
    out = placement.lay(plane, fill=255)
    expected = np.full((6, 5), 255, np.uint8)
    expected[2:6, :2] = plane[:, 3:]
    np.testing.assert_array_equal(out, expected)
    assert EVERYWHERE.lay(plane, fill=0) is plane
