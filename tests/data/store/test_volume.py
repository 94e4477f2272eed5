import json
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorstore as ts
import yaozarrs

from vemseg_jax.data.store.downsample import downsample_image, downsample_mask
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.normalization import slice_statistics
from vemseg_jax.data.store.volume import FULL, TRAINING, UNLABELLED, create_array, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError

SHAPE = (3, 90, 70)


def _images(dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, SHAPE, dtype, endpoint=True)


def _volume(path, *, downsample=4, dtype=np.uint8, seed=0, **options):
    images = _images(dtype, seed)
    with create_volume(
        path, shape=SHAPE, dtype=dtype, voxel_size=(50, 8, 9), downsample=downsample, **options
    ) as writer:
        for z in (2, 0, 1):
            writer.write(z, images[z])
        with writer.create_label("nuclei") as label:
            label.write_mask(1, images[1] > 99)
        with writer.create_label("ignore", kind="ignore") as label:
            label.write_mask(2, images[2] > 200)
    return images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("downsample", [4, 1])
def test_round_trip(tmp_path, dtype, downsample):
    path = tmp_path / "v.zarr"
    images = _volume(path, dtype=dtype, downsample=downsample, slice_names=["a", "b", "c"])
    volume = open_volume(path)
    assert (volume.shape, volume.voxel_size) == (SHAPE, (50.0, 8.0, 9.0))
    assert (volume.dtype, volume.dtype_max) == (np.dtype(dtype), np.iinfo(dtype).max)
    assert volume.slice_names == ("a", "b", "c")
    np.testing.assert_array_equal(volume.image(FULL).read().result(), images)
    training = images if downsample == 1 else downsample_image(images)
    np.testing.assert_array_equal(volume.image(TRAINING).read().result(), training)
    assert volume.plane_shape(TRAINING) == training.shape[1:]
    scaled = images / np.iinfo(dtype).max
    np.testing.assert_allclose(volume.slice_mean, scaled.mean((1, 2)), rtol=1e-14)
    np.testing.assert_allclose(volume.slice_std, scaled.std((1, 2), ddof=1), rtol=1e-14)


@pytest.mark.parametrize("downsample", [4, 1])
def test_metadata_is_valid_ome_zarr(tmp_path, downsample):
    path = tmp_path / "v.zarr"
    _volume(path, downsample=downsample)
    with create_label(path, "nuclei_pred", levels=(TRAINING,), kind="prediction") as label:
        label.write(0, TRAINING, np.ones(open_volume(path).plane_shape(TRAINING), np.uint8))
    yaozarrs.validate_zarr_store(str(path))
    datasets = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0][
        "datasets"
    ]
    transformations = [d["coordinateTransformations"] for d in datasets]
    assert transformations[0] == [{"type": "scale", "scale": [50.0, 8.0, 9.0]}]
    assert transformations[1:] == (
        []
        if downsample == 1
        else [
            [
                {"type": "scale", "scale": [50.0, 32.0, 36.0]},
                {"type": "translation", "translation": [0.0, 12.0, 13.5]},
            ]
        ]
    )


def test_unlabelled_is_never_background(tmp_path):
    path = tmp_path / "v.zarr"
    images = _volume(path)
    volume = open_volume(path)
    assert volume.label_names == ("ignore", "nuclei")
    assert volume.labelled_slices("nuclei") == (1,)
    for level in (FULL, TRAINING):
        label = volume.label("nuclei", level).read().result()
        assert label.shape[1:] == volume.plane_shape(level)
        assert (label[[0, 2]] == UNLABELLED).all()
    np.testing.assert_array_equal(
        volume.label("nuclei", TRAINING)[1].read().result(), downsample_mask(images[1] > 99)
    )
    assert volume.has_ignore
    ignore = volume.label("ignore", FULL).read().result()
    assert not ignore[:2].any()
    np.testing.assert_array_equal(ignore[2], images[2] > 200)


def test_arrays_are_aligned_to_slices_and_chunks(tmp_path):
    array = create_array(
        tmp_path / "a", shape=(2, 1300, 600), dtype=np.dtype(np.uint8), fill_value=255
    )
    assert array.chunk_layout.write_chunk.shape == (1, 1536, 1024)
    assert array.chunk_layout.read_chunk.shape == (1, 512, 512)
    small = create_array(tmp_path / "b", shape=(2, 30, 600), dtype=np.dtype(np.uint8), fill_value=0)
    assert small.chunk_layout.read_chunk.shape == (1, 30, 512)
    assert array[0, :2, :2].read().result().tolist() == [[255, 255], [255, 255]]


def test_statistics_of_full_scale_slices_are_exact():
    plane = np.full((700, 3000), 65535, np.uint16)
    assert slice_statistics(plane) == (1.0, 0.0)
    plane[::2] = 0
    n = plane.size
    mean, std = slice_statistics(plane)
    assert mean == 0.5
    assert std == pytest.approx((0.25 * n / (n - 1)) ** 0.5, rel=1e-15)


def test_slices_may_be_written_from_threads(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (20, 64, 64), np.uint8)
    path = tmp_path / "v.zarr"
    with (
        create_volume(
            path, shape=images.shape, dtype=np.uint8, voxel_size=(1, 1, 1), downsample=4
        ) as writer,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda z: writer.write(z, images[z]), range(20)))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.image(FULL).read().result(), images)
    np.testing.assert_allclose(volume.slice_mean, images.mean((1, 2)) / 255)


def test_exception_leaves_nothing(tmp_path):
    path = tmp_path / "v.zarr"
    with (
        pytest.raises(RuntimeError),
        create_volume(
            path, shape=SHAPE, dtype=np.uint8, voxel_size=(1, 1, 1), downsample=4
        ) as writer,
    ):
        writer.write(0, _images()[0])
        with pytest.raises(InputError, match="no such volume; only the unfinished"):
            open_volume(path)
        with pytest.raises(InputError, match="unfinished"):
            open_volume(tmp_path / "v.zarr.partial")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_missing_slice_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="slice 1 was never written"),
        create_volume(
            tmp_path / "v.zarr", shape=SHAPE, dtype=np.uint8, voxel_size=(1, 1, 1), downsample=4
        ) as writer,
    ):
        writer.write(0, _images()[0])
        writer.write(2, _images()[2])
    assert list(tmp_path.iterdir()) == []


def test_overwrite_keeps_the_old_volume_until_the_new_is_complete(tmp_path):
    path = tmp_path / "v.zarr"
    old = _volume(path)
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        _volume(path)
    with (
        pytest.raises(RuntimeError),
        create_volume(
            path,
            shape=SHAPE,
            dtype=np.uint8,
            voxel_size=(1, 1, 1),
            downsample=4,
            overwrite=True,
        ) as writer,
    ):
        writer.write(0, _images(seed=5)[0])
        raise RuntimeError
    np.testing.assert_array_equal(open_volume(path).image(FULL).read().result(), old)
    new = _volume(path, seed=5, overwrite=True)
    np.testing.assert_array_equal(open_volume(path).image(FULL).read().result(), new)
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]


def test_old_volume_comes_back_after_a_death_between_the_two_renames(tmp_path):
    path = tmp_path / "v.zarr"
    old = _volume(path)
    path.rename(tmp_path / ".v.zarr.replaced")
    with pytest.raises(InputError, match="exists already"):
        _volume(path)
    np.testing.assert_array_equal(open_volume(path).image(FULL).read().result(), old)


def test_stale_partial_is_removed(tmp_path):
    partial = tmp_path / "v.zarr.partial"
    (partial / "0" / "c").mkdir(parents=True)
    (partial / "zarr.json").write_text("{}")
    with create_volume(
        tmp_path / "v.zarr", shape=SHAPE, dtype=np.uint8, voxel_size=(1, 1, 1), downsample=1
    ) as writer:
        assert writer.removed_stale
        for z, plane in enumerate(_images()):
            writer.write(z, plane)
    assert open_volume(tmp_path / "v.zarr").downsample == 1


def _try_to_write(path, answer):
    try:
        _volume(path)
        answer.put("written")
    except InputError as error:
        answer.put(str(error))


def test_two_writers_of_one_output_are_kept_apart(tmp_path):
    path = tmp_path / "v.zarr"
    context = multiprocessing.get_context("spawn")
    with create_volume(
        path, shape=SHAPE, dtype=np.uint8, voxel_size=(1, 1, 1), downsample=4
    ) as writer:
        answer = context.Queue()
        other = context.Process(target=_try_to_write, args=(path, answer))
        other.start()
        assert "another process is writing it" in answer.get(timeout=60)
        other.join()
        for z, plane in enumerate(_images()):
            writer.write(z, plane)
    np.testing.assert_array_equal(open_volume(path).image(FULL).read().result(), _images())


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_volume_is_never_replaced(tmp_path, overwrite):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("mine")
    foreign = tmp_path / "foreign.zarr"
    foreign.mkdir()
    (foreign / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    for name in ("photos", "link", "file", "foreign.zarr"):
        with pytest.raises(InputError, match=f"{name}: .*(not be overwritten|exists already)"):
            _volume(tmp_path / name, overwrite=overwrite)
    assert (folder / "a.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "foreign.zarr", "link", "photos"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.int16}, "int16"),
        ({"dtype": np.float32}, "float32"),
        ({"downsample": 2}, "downsample 2"),
        ({"shape": (3, 2, 90)}, "too small"),
        ({"shape": (0, 90, 90)}, "too small"),
        ({"voxel_size": (50, 0, 9)}, "voxel size"),
        ({"voxel_size": (50, float("nan"), 9)}, "voxel size"),
    ],
)
def test_unusable_volumes_are_refused(tmp_path, change, message):
    options = {"shape": SHAPE, "dtype": np.uint8, "voxel_size": (1, 1, 1), "downsample": 4}
    with pytest.raises(InputError, match=message):
        create_volume(tmp_path / "v.zarr", **(options | change))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def volume_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "v.zarr"
    _volume(path)
    return path


def test_open_errors(tmp_path, volume_path):
    with pytest.raises(InputError, match=r"no\.zarr: no such volume"):
        open_volume(tmp_path / "no.zarr")
    with pytest.raises(InputError, match="not a volume"):
        open_volume(tmp_path)
    cases = [
        (lambda d: d["attributes"].pop("vemseg"), "not written by vemseg-convert"),
        (lambda d: d["attributes"]["vemseg"].update(format=2), "format 2, this version reads 1"),
        (lambda d: d["attributes"]["vemseg"].update(complete=False), "unfinished"),
        (lambda d: d["attributes"]["vemseg"].pop("dtype_max"), "damaged metadata"),
        (lambda d: d["attributes"]["vemseg"]["slice_mean"].pop(), "disagree"),
        (lambda d: d["attributes"].pop("ome"), "damaged metadata"),
        (lambda d: d.update(node_type="array"), "not the metadata"),
    ]
    for i, (change, message) in enumerate(cases):
        path = tmp_path / f"{i}.zarr"
        shutil.copytree(volume_path, path)
        document = json.loads((path / "zarr.json").read_text())
        change(document)
        (path / "zarr.json").write_text(json.dumps(document))
        with pytest.raises(InputError, match=message):
            open_volume(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="not the metadata"):
        open_volume(path)
    shutil.copytree(volume_path, tmp_path / "gone.zarr")
    shutil.rmtree(tmp_path / "gone.zarr" / "1")
    with pytest.raises(InputError, match="not a readable Zarr array"):
        open_volume(tmp_path / "gone.zarr")


def test_unknown_label_or_level_lists_what_there_is(tmp_path):
    path = tmp_path / "v.zarr"
    _volume(path)
    volume = open_volume(path)
    with pytest.raises(InputError, match=r"'mitochondria'.*ignore, nuclei"):
        volume.label("mitochondria", FULL)
    with create_label(volume, "n_pred", levels=(TRAINING,), kind="prediction") as label:
        label.write(0, TRAINING, np.zeros(volume.plane_shape(TRAINING), np.uint8))
    with pytest.raises(InputError, match=r"no level 'full'; it has: training"):
        volume.label("n_pred", FULL)


def test_label_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "v.zarr"
    _volume(path)
    volume = open_volume(path)
    before = sorted(p.name for p in (path / "labels").iterdir())
    plane = np.ones(volume.plane_shape(TRAINING), np.uint8)
    with (
        pytest.raises(RuntimeError),
        create_label(volume, "n_pred", kind="prediction", levels=(TRAINING,)) as label,
    ):
        label.write(0, TRAINING, plane)
        assert "n_pred" not in volume.label_names
        raise RuntimeError
    assert sorted(p.name for p in (path / "labels").iterdir()) == before
    attributes = {"structure": "nuclei", "training_slices": [1]}
    with create_label(
        volume, "n_pred", kind="prediction", levels=(TRAINING,), attributes=attributes
    ) as label:
        label.write(2, TRAINING, plane)
        label.write(0, TRAINING, 0 * plane)
    assert volume.label_names == ("ignore", "n_pred", "nuclei")
    assert volume.label_info("n_pred") == attributes | {
        "kind": "prediction",
        "levels": ["training"],
        "labelled_slices": [0, 2],
    }
    values = volume.label("n_pred", TRAINING).read().result()
    assert [np.unique(v).tolist() for v in values] == [[0], [255], [1]]


def test_label_with_one_level_has_a_coarser_one_for_viewers(tmp_path):
    path = tmp_path / "v.zarr"
    _volume(path)
    volume = open_volume(path)
    plane = np.random.default_rng(0).integers(0, 2, volume.plane_shape(TRAINING), np.uint8)
    with create_label(volume, "n_pred", kind="prediction", levels=(TRAINING,)) as label:
        label.write(1, TRAINING, plane)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/labels/n_pred/2"}}
    np.testing.assert_array_equal(ts.open(spec).result()[1].read().result(), plane[::2, ::2])


def test_existing_labels_are_protected(tmp_path):
    path = tmp_path / "v.zarr"
    _volume(path)
    full = np.ones(SHAPE[1:], np.uint8)
    with pytest.raises(InputError, match="annotation"):
        create_label(path, "nuclei", kind="prediction", overwrite=True)
    for _ in range(2):
        with create_label(path, "n_pred", kind="prediction", overwrite=True) as label:
            label.write_mask(0, full)
    with pytest.raises(InputError, match="exists already; give --overwrite"):
        create_label(path, "n_pred", kind="prediction")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../x", "annotation", "letters, digits"),
        ("", "annotation", "letters, digits"),
        ("a b", "annotation", "letters, digits"),
        ("9a", "annotation", "no digit first"),
        ("ignore", "annotation", "reserved"),
        ("nuclei", "ignore", "reserved"),
        ("cells_pred", "annotation", "kept for predictions"),
    ],
)
def test_label_names(tmp_path, name, kind, message):
    path = tmp_path / "v.zarr"
    _volume(path)
    with pytest.raises(InputError, match=message):
        create_label(path, name, kind=kind)


def test_label_planes_are_checked(tmp_path):
    path = tmp_path / "v.zarr"
    _volume(path)
    training = open_volume(path).plane_shape(TRAINING)
    with (
        pytest.raises(ValueError, match="levels with different slices"),
        create_label(path, "a") as label,
    ):
        with pytest.raises(ValueError, match="needed"):
            label.write(0, FULL, np.zeros(training, np.uint8))
        with pytest.raises(ValueError, match="needed"):
            label.write(0, TRAINING, np.zeros(training, np.int32))
        with pytest.raises(ValueError, match="other than 0, 1 and 255"):
            label.write(0, TRAINING, np.full(training, 2, np.uint8))
        label.write(0, TRAINING, np.full(training, 255, np.uint8))
    assert "a" not in open_volume(path).label_names
