import os

import numpy as np
import pytest
import tifffile
import yaozarrs
from scipy import ndimage
from skimage.morphology import disk

from vemseg_jax.data.convert import stack as convert_module
from vemseg_jax.data.convert.label_files import dilate_disk
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.convert.voxel_size import resolve_voxel_size
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.store.downsample import downsample_ignore, downsample_image, downsample_mask
from vemseg_jax.data.store.in_flight import WORKERS, in_flight
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError

SHAPE = (6, 64, 80)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, SHAPE, np.uint8)
NUCLEI = ndimage.gaussian_filter(RNG.normal(size=SHAPE), (0, 4, 4)) > 0
NUCLEOLI = NUCLEI & (ndimage.gaussian_filter(RNG.normal(size=SHAPE), (0, 2, 2)) > 0)
VOXELS = (50.0, 8.0, 10.0)


def _folder(path, planes, *, stem="s"):
    """Writes `{number: plane}` or planes numbered from 1."""
    path.mkdir()
    planes = planes if isinstance(planes, dict) else dict(enumerate(planes, start=1))
    for number, plane in planes.items():
        plane = plane.view(np.uint8) if plane.dtype == bool else plane
        tifffile.imwrite(path / f"{stem}_{number:03d}.tif", plane)
    return path


@pytest.fixture
def images(tmp_path):
    return _folder(tmp_path / "images", IMAGES)


@pytest.fixture
def stack(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", IMAGES)
    return tmp_path / "stack.tif"


def _convert(tmp_path, images, **options):
    options.setdefault("voxel_size", VOXELS)
    return open_volume(convert(images, tmp_path / "v.zarr", ConvertOptions(**options)))


def _label(volume, name, level=FULL):
    return volume.label(name, level).read().result()


def _refused(tmp_path, images, message, **options):
    """The conversion must fail with one line and leave nothing at all."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        _convert(tmp_path, images, **options)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_folder_with_labels_of_some_slices(tmp_path, images, capsys):
    nuclei = _folder(tmp_path / "n", {2: NUCLEI[1] * np.uint8(255), 5: NUCLEI[4] * np.uint8(255)})
    nucleoli = _folder(tmp_path / "k", {5: NUCLEOLI[4].astype(np.uint8)})
    volume = _convert(tmp_path, images, labels=[("nuclei", nuclei), ("nucleoli", nucleoli)])
    np.testing.assert_array_equal(volume.image(FULL).read().result(), IMAGES)
    np.testing.assert_array_equal(volume.image(TRAINING).read().result(), downsample_image(IMAGES))
    assert volume.voxel_size == VOXELS
    assert volume.slice_names[0] == "s_001.tif"
    assert volume.label_names == ("nuclei", "nucleoli")
    assert volume.labelled_slices("nuclei") == (1, 4)
    assert volume.labelled_slices("nucleoli") == (4,)
    for level, rule in ((FULL, lambda m: m), (TRAINING, downsample_mask)):
        label = _label(volume, "nuclei", level)
        np.testing.assert_array_equal(label[[1, 4]], rule(NUCLEI[[1, 4]]))
        assert (label[[0, 2, 3, 5]] == 255).all()
    assert volume.label_info("nuclei")["values"] == [255]
    assert volume.label_info("nuclei")["files"] == {"1": "s_002.tif", "4": "s_005.tif"}
    yaozarrs.validate_zarr_store(str(volume.path))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "s_002.tif", "nuclei", "s_002.tif"] in lines
    assert ["4", "s_005.tif", "nucleoli", "s_005.tif"] in lines
    assert any("50,8,10" in line for line in lines)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stack_with_dense_labels(tmp_path, dtype):
    scale = np.iinfo(dtype).max // 255
    tifffile.imwrite(tmp_path / "i.tif", IMAGES.astype(dtype) * dtype(scale))
    tifffile.imwrite(tmp_path / "l.tif", NUCLEI.astype(np.uint8) * 255)
    volume = _convert(
        tmp_path, tmp_path / "i.tif", labels=[("nuclei", tmp_path / "l.tif")], downsample=1
    )
    assert volume.dtype == dtype
    assert volume.labelled_slices("nuclei") == tuple(range(6))
    np.testing.assert_array_equal(_label(volume, "nuclei", TRAINING), NUCLEI)
    np.testing.assert_allclose(volume.slice_mean, IMAGES.mean((1, 2)) / 255)


def test_labelled_slices_of_a_dense_stack(tmp_path, stack):
    tifffile.imwrite(tmp_path / "l.tif", NUCLEI.astype(np.uint8))
    labels = [("nuclei", tmp_path / "l.tif")]
    volume = _convert(tmp_path, stack, labels=labels, labelled_slices={"nuclei": (4, 0)})
    assert volume.labelled_slices("nuclei") == (0, 4)
    label = _label(volume, "nuclei")
    assert (label[[1, 2, 3, 5]] == 255).all()
    np.testing.assert_array_equal(label[[0, 4]], NUCLEI[[0, 4]])


def test_label_folder_of_a_stack_counts_from_zero_or_one(tmp_path, stack, capsys):
    folder = _folder(tmp_path / "l", {0: NUCLEI[0], 3: NUCLEI[3]})
    volume = _convert(tmp_path, stack, labels=[("nuclei", folder)])
    assert volume.labelled_slices("nuclei") == (0, 3)
    np.testing.assert_array_equal(_label(volume, "nuclei")[3], NUCLEI[3])
    text = capsys.readouterr().out
    assert "numbers count slices from 0 (0 is one of them)" in text
    assert ["3", "slice", "3", "nuclei", "s_003.tif"] in [x.split() for x in text.splitlines()]
    folder = _folder(tmp_path / "m", {1: NUCLEI[0], 4: NUCLEI[3]})
    for given in ({"labels": [("nuclei", folder)]}, {"ignore": folder}):
        _refused(tmp_path, stack, "--first_slice=1, as Fiji", overwrite=True, **given)
    volume = _convert(
        tmp_path,
        stack,
        labels=[("nuclei", folder)],
        ignore=folder,
        first_slice=1,
        overwrite=True,
    )
    assert volume.labelled_slices("nuclei") == (0, 3)
    np.testing.assert_array_equal(_label(volume, "nuclei")[[0, 3]], NUCLEI[[0, 3]])
    np.testing.assert_array_equal(_label(volume, "ignore")[3], NUCLEI[3])


def test_pairing_of_stacks_is_printed_side_by_side(tmp_path, images, stack, capsys):
    tifffile.imwrite(tmp_path / "l.tif", NUCLEI.astype(np.uint8))
    for source, image in ((images, "s_006.tif"), (stack, "slice 5")):
        _convert(tmp_path, source, labels=[("nuclei", tmp_path / "l.tif")], overwrite=True)
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        fiji = " (in Fiji 6)" if source == stack else ""
        assert f"5 {image} nuclei slice 5{fiji}" in lines
        assert "... 4 more nuclei ..." in lines


def test_first_slice_where_nothing_counts(tmp_path, images, stack):
    folder = _folder(tmp_path / "l", {2: NUCLEI[1]})
    for source in (images, stack):
        labels = [("nuclei", folder)] if source == images else []
        _refused(tmp_path, source, "nothing counts slices here", labels=labels, first_slice=1)


def test_painted_slices_of_a_stack(tmp_path, stack, capsys):
    painted = NUCLEI.astype(np.uint8)
    painted[[1, 2, 4]] = 0
    tifffile.imwrite(tmp_path / "l.tif", painted)
    folder = _folder(tmp_path / "all", dict(enumerate(painted)))
    for path in (tmp_path / "l.tif", folder):
        labels = [("nuclei", path)]
        message = r"no nuclei on 3 of 6 labelled slices \(1-2, 4\).*_slices=nuclei=empty.*=none"
        _refused(tmp_path, stack, message, labels=labels, overwrite=True)
        for say, kept in (("empty", (0, 3, 5)), ("none", tuple(range(6)))):
            for name in ("nuclei", ""):
                volume = _convert(
                    tmp_path,
                    stack,
                    labels=labels,
                    unlabelled_slices={name: say},
                    overwrite=True,
                )
                assert volume.labelled_slices("nuclei") == kept
                assert volume.label_info("nuclei")["unlabelled_slices"] == say
            assert "3 slices show none of it" in capsys.readouterr().out
    slices = {"nuclei": (0, 1)}
    labels = [("nuclei", tmp_path / "l.tif")]
    message = "says which slices are labelled already"
    flags = {"labelled_slices": slices, "unlabelled_slices": {"nuclei": "empty"}}
    _refused(tmp_path, stack, message, labels=labels, overwrite=True, **flags)
    _convert(tmp_path, stack, labels=labels, labelled_slices=slices, overwrite=True)
    assert "warning: of the slices in --labelled_slices=nuclei" in capsys.readouterr().out
    slices = {"nuclei": (1, 2)}
    message = "no pixel of nuclei.*counts from 0"
    flags = {"labelled_slices": slices, "overwrite": True}
    _refused(tmp_path, stack, message, labels=labels, **flags)


def test_all_doubts_at_once(tmp_path, stack):
    painted = NUCLEI.astype(np.uint8)
    painted[[1, 2, 4]] = 0
    tifffile.imwrite(tmp_path / "l.tif", painted)
    tifffile.imwrite(tmp_path / "k.tif", painted * 3 + NUCLEOLI * (painted > 0))
    labels = [("nuclei", tmp_path / "l.tif"), ("nucleoli", tmp_path / "k.tif")]
    _refused(tmp_path, stack, "slices=nuclei=empty.*; .*values=nucleoli=3 with", labels=labels)


def test_values_without_a_meaning(tmp_path, images, capsys):
    both = NUCLEI.astype(np.int16) + NUCLEOLI
    both[:, :10] = -1
    both[:, 10:12] = 255
    folder = _folder(tmp_path / "l", {2: both[1], 3: both[2]})
    labels = [("nuclei", folder), ("nucleoli", folder)]
    values = {"nuclei": (1, 2), "nucleoli": (2,)}
    message = r"values -1 \(.*, 255 \(.*--background_values=nuclei=-1\+255 if.*=nucleoli=-1\+255"
    _refused(tmp_path, images, message, labels=labels, label_values=values)
    message = r"values -1 \(.* of nuclei; .*--unlabelled_value=nuclei=255\+-1"
    unlabelled = {"": (255,)}
    _refused(
        tmp_path, images, message, labels=labels, label_values=values, unlabelled_values=unlabelled
    )
    volume = _convert(
        tmp_path,
        images,
        labels=labels,
        label_values=values,
        unlabelled_values=unlabelled,
        background_values={"nuclei": (-1,), "nucleoli": "others"},
    )
    label = _label(volume, "nucleoli")[1]
    assert (label[:10] == 0).all()
    assert (label[10:12] == 255).all()
    np.testing.assert_array_equal(label[12:], NUCLEOLI[1, 12:])
    np.testing.assert_array_equal(_label(volume, "nuclei")[1, 12:], NUCLEI[1, 12:])
    text = capsys.readouterr().out
    assert "nuclei: value 1+2; background 0, -1; not labelled 255" in text
    assert "nucleoli: value 2; background 0, 1 (nuclei), others; not labelled 255" in text


def test_explicit_pairing(tmp_path, images):
    _folder(tmp_path / "l", {90: NUCLEI[1], 91: NUCLEI[5]}, stem="other")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "structure,image,label\n"
        "nuclei,s_006.tif,l/other_091.tif\n"
        f"nuclei,2,{tmp_path}/l/other_090.tif\n"
    )
    _refused(tmp_path, images, r"image 2 may be s_002\.tif", labels_csv=pairs)
    volume = _convert(tmp_path, images, labels_csv=pairs, first_slice=1)
    assert volume.labelled_slices("nuclei") == (1, 5)
    np.testing.assert_array_equal(_label(volume, "nuclei")[[1, 5]], NUCLEI[[1, 5]])


def test_values_of_several_structures_in_one_file_set(tmp_path, images):
    both = NUCLEI.astype(np.uint8) + NUCLEOLI
    folder = _folder(tmp_path / "l", {2: both[1], 3: both[2]})
    volume = _convert(
        tmp_path,
        images,
        labels=[("nuclei", folder), ("nucleoli", folder), ("anything", folder)],
        label_values={"nuclei": (1, 2), "nucleoli": (2,), "anything": "any"},
    )
    np.testing.assert_array_equal(_label(volume, "nuclei")[1:3], NUCLEI[1:3])
    np.testing.assert_array_equal(_label(volume, "anything")[1:3], NUCLEI[1:3])
    np.testing.assert_array_equal(_label(volume, "nucleoli")[1:3], NUCLEOLI[1:3])


@pytest.mark.parametrize("downsample", [4, 1])
def test_ignore_mask(tmp_path, stack, downsample):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 20:22, 30:33] = 255
    mask[4, 0, 0] = 7
    tifffile.imwrite(tmp_path / "m.tif", mask)
    volume = _convert(
        tmp_path, stack, ignore=tmp_path / "m.tif", ignore_dilation=3, downsample=downsample
    )
    assert volume.has_ignore
    expected = ndimage.binary_dilation(mask > 0, disk(3)[None])
    np.testing.assert_array_equal(_label(volume, "ignore"), expected)
    training = expected if downsample == 1 else downsample_ignore(expected)
    np.testing.assert_array_equal(_label(volume, "ignore", TRAINING), training)


def test_ignore_folder_leaves_other_slices_alone(tmp_path, images):
    folder = _folder(tmp_path / "m", {4: NUCLEI[3].astype(np.uint8)})
    volume = _convert(tmp_path, images, ignore=folder)
    np.testing.assert_array_equal(_label(volume, "ignore")[3], NUCLEI[3])
    assert _label(volume, "ignore")[[0, 1, 2, 4, 5]].max() == 0


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 7, 90])
def test_disk_dilation(radius):
    mask = np.random.default_rng(radius).random((40, 33)) > 0.99
    expected = ndimage.binary_dilation(mask, disk(radius)) if radius else mask
    np.testing.assert_array_equal(dilate_disk(mask, radius), expected)
    assert not dilate_disk(np.zeros((4, 5), np.uint8), radius).any()


def test_ome_zarr_source_is_a_volume_of_ours_too(tmp_path, images):
    first = _convert(tmp_path, images)
    again = convert(first.path, tmp_path / "again.zarr", ConvertOptions())
    volume = open_volume(again)
    assert volume.voxel_size == VOXELS
    np.testing.assert_array_equal(volume.image(FULL).read().result(), IMAGES)


def test_gaps_are_named(tmp_path, capsys):
    numbers = dict(zip((1, 2, 4, 26), IMAGES, strict=False))
    _convert(tmp_path, _folder(tmp_path / "g", numbers))
    assert "3, 5-25 missing" in capsys.readouterr().out


def test_labels_that_do_not_fit(tmp_path, images, stack):
    good = NUCLEI[1].astype(np.uint8)
    cases = {
        "shape": ({2: good[:-1]}, r"s_002\.tif: 63 x 80 pixels, the images have 64 x 80"),
        "values": ({2: good * 3, 3: good}, r"label values 0, 1 .*first in .*s_003\.tif\), 3 "),
        "three": ({2: good + NUCLEOLI[1]}, r"label values 0, 1 .*, 2 .*--label_values=nuclei=1"),
        "negative": (
            {2: -good.astype(np.int16)},
            r"label values 0, -1 .*--unlabelled_v",
        ),
        "absent": ({2: 0 * good, 3: 0 * good}, "no pixel of nuclei on any of its 2 labelled"),
        "slice": ({2: good, 9: good}, r"s_009\.tif: no image has its number '009'"),
        "colour": ({2: np.zeros((64, 80, 3), np.uint8)}, "colour image"),
        "float": ({2: good.astype(np.float32)}, "float32"),
    }
    for name, (planes, message) in cases.items():
        folder = _folder(tmp_path / name, planes)
        _refused(tmp_path, images, message, labels=[("nuclei", folder)])
    (tmp_path / "empty").mkdir()
    _refused(tmp_path, images, "no TIFF files", labels=[("nuclei", tmp_path / "empty")])
    tifffile.imwrite(tmp_path / "short.tif", NUCLEI[:5].astype(np.uint8))
    message = r"short\.tif: 5 slices, the images have 6"
    _refused(tmp_path, stack, message, labels=[("nuclei", tmp_path / "short.tif")])


def test_names_and_flags_that_do_not_fit(tmp_path, images, stack):
    folder = _folder(tmp_path / "l", {2: NUCLEI[1]})
    for name in ("ignore", "nuclei_pred", "my nuclei", "../x"):
        _refused(tmp_path, images, "label name", labels=[(name, folder)])
    _refused(tmp_path, images, "given twice", labels=[("a", folder), ("a", folder)])
    labels = [("a", folder)]
    _refused(tmp_path, images, "no structure 'b'", labels=labels, label_values={"b": (1,)})
    _refused(tmp_path, images, "is a folder", labels=labels, labelled_slices={"a": (1,)})
    _refused(tmp_path, images, "needs --ignore", ignore_dilation=3)
    _refused(tmp_path, images, "only zyx", axes="xyz")
    tifffile.imwrite(tmp_path / "l.tif", NUCLEI.astype(np.uint8))
    for slices, message in (((0, 6), "no slice 6"), ((), "empty"), ((1, 1), "twice")):
        _refused(
            tmp_path,
            stack,
            message,
            labels=[("a", tmp_path / "l.tif")],
            labelled_slices={"a": slices},
        )


def test_voxel_size_must_be_known_and_agree(tmp_path, stack):
    _refused(tmp_path, stack, r"--voxel_size=50,10,10", voxel_size=None)
    _refused(tmp_path, stack, "three positive", voxel_size=(50.0, -1.0, 10.0))
    path = tmp_path / "ij.tif"
    metadata = {"spacing": 50.0, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(path, IMAGES, imagej=True, metadata=metadata, resolution=(1 / 10, 1 / 8))
    _refused(tmp_path, path, r"records 50,8,10 nm", voxel_size=(50.0, 10.0, 8.0))
    source = open_source(path)
    assert resolve_voxel_size(source, (50.0, 8.05, 10.0))[0] == (50.0, 8.05, 10.0)
    assert _convert(tmp_path, path, voxel_size=None).voxel_size == pytest.approx(VOXELS)


def test_axes_that_are_not_slices_must_be_confirmed(tmp_path):
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, IMAGES, imagej=True, metadata={"axes": "TYX"})
    _refused(tmp_path, path, "recorded as tyx; give --axes=zyx")
    assert _convert(tmp_path, path, axes="zyx").shape == SHAPE


def test_too_small(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((3, 30, 80), np.uint8), photometric="minisblack")
    _refused(tmp_path, tmp_path / "s.tif", "too small; at least 31")
    assert _convert(tmp_path, tmp_path / "s.tif", downsample=1).shape == (3, 30, 80)


def test_a_slice_cut_short_is_found_before_anything_is_written(tmp_path, images, monkeypatch):
    path = images / "s_004.tif"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(convert_module, "create_volume", None)
    _refused(tmp_path, images, r"s_004\.tif: truncated or damaged")


def test_pixels_that_cannot_be_decoded_leave_nothing(tmp_path, images):
    path = images / "s_004.tif"
    tifffile.imwrite(path, IMAGES[3], compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset + 10 : offset + count] = os.urandom(count - 10)
    path.write_bytes(data)
    _refused(tmp_path, images, r"s_004\.tif: truncated or damaged, cannot be decoded")


def test_existing_output(tmp_path, images):
    _convert(tmp_path, images)
    _refused(tmp_path, images, "exists already; give --overwrite")
    volume = _convert(tmp_path, images, overwrite=True, voxel_size=(1.0, 2.0, 3.0))
    assert volume.voxel_size == (1.0, 2.0, 3.0)
    with pytest.raises(InputError, match="also the source"):
        convert(volume.path, volume.path, ConvertOptions(overwrite=True))
    with pytest.raises(InputError, match="will not be overwritten"):
        convert(images, images, ConvertOptions(voxel_size=VOXELS, overwrite=True))
    assert len(list(images.iterdir())) == len(IMAGES)


def test_few_slices_are_in_flight():
    running, most, done = set(), [], []

    def work(item):
        running.add(item)
        most.append(len(running))
        done.append(item)
        running.discard(item)

    assert len(list(in_flight(work, range(50)))) == 50
    assert sorted(done) == list(range(50))
    assert max(most) <= WORKERS

    def fails(item):
        done.append(item)
        if item == 3:
            raise InputError("slice 3")

    done.clear()
    with pytest.raises(InputError, match="slice 3"):
        list(in_flight(fails, range(1000)))
    assert max(done) < 3 + 2 * WORKERS
