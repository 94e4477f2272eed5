import dataclasses
import json
import shutil

import numpy as np
import pytest

from vemseg_jax.data.check.plot import plot_report
from vemseg_jax.data.check.report import ERROR, WARNING, report_record, report_text
from vemseg_jax.data.check.volume import CheckOptions, check_volume
from vemseg_jax.data.store.slice_list import slice_list
from vemseg_jax.data.store.volume import TRAINING, open_array, open_volume
from vemseg_jax.data.store.volume_writer import create_volume
from vemseg_jax.errors import InputError
from vemseg_jax.memory import device_memory, host_memory

DEPTH, SIZE = 24, 64
LABELLED = tuple(range(0, DEPTH, 3))
OPTIONS = CheckOptions(crop_size=32, memory=2**30)


def nuclei(z):
    """A disk that wanders, so that no mask fits the slice of another, nor its mirror image."""
    y, x = np.mgrid[:SIZE, :SIZE]
    turn = 1.9 * z
    return (y - 24 - 9 * np.sin(turn)) ** 2 + (x - 28 - 9 * np.cos(turn)) ** 2 < 13**2


def nucleoli(z):
    y, x = np.mgrid[:SIZE, :SIZE]
    turn = 1.9 * z
    return (y - 24 - 9 * np.sin(turn)) ** 2 + (x - 28 - 9 * np.cos(turn)) ** 2 < 6**2


def image(z):
    rng = np.random.default_rng(z)
    plane = 150 + 10 * rng.standard_normal((SIZE, SIZE)) - 50.0 * nuclei(z) - 30 * nucleoli(z)
    return np.clip(plane, 1, 254).astype(np.uint8)


def write(
    path,
    *,
    images=image,
    labels=None,
    slices=LABELLED,
    ignore=None,
    downsample=1,
    names=None,
    voxel_size=(50, 16, 16),
):
    labels = {"nuclei": nuclei, "nucleoli": nucleoli} if labels is None else labels
    with create_volume(
        path,
        shape=(DEPTH, SIZE, SIZE),
        dtype=np.uint8,
        voxel_size=voxel_size,
        downsample=downsample,
        slice_names=names,
        source="tiffs",
        attributes={"axes": "zyx", "axes_from": "recorded as zyx", "voxel_size_from": "the source"},
    ) as writer:
        for z in range(DEPTH):
            writer.write(z, images(z))
        for name, mask in labels.items():
            files = {str(z): f"{name}_{z}.tif" for z in slices}
            with writer.create_label(name, attributes={"files": files}) as label:
                for z in slices:
                    label.write_mask(z, mask(z))
        if ignore is not None:
            with writer.create_label("ignore", kind="ignore") as label:
                for z in range(DEPTH):
                    label.write_mask(z, ignore(z))
    return path


def topics(report, severity=None):
    return {f.topic for f in report.findings if severity in (None, f.severity)}


def found(report, topic):
    (finding,) = [f for f in report.findings if f.topic == topic]
    assert finding.message and finding.action
    return finding


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write(tmp_path_factory.mktemp("check") / "clean.zarr")


def test_clean_volume_has_facts_and_no_findings(clean):
    report = check_volume(clean, OPTIONS)
    assert report.findings == ()
    assert report.passes(strict=True)
    assert report.training_shape == (DEPTH, SIZE, SIZE)
    nucleus = report.labels[0]
    assert (nucleus.name, nucleus.slices) == ("nuclei", LABELLED)
    assert nucleus.pixels == tuple(int(nuclei(z).sum()) for z in LABELLED)
    assert nucleus.shares[0] == nucleus.pixels[0] / SIZE**2
    assert nucleus.files["3"] == "nuclei_3.tif"
    assert nucleus.fit > 0.9
    assert report.memory.supervised == len(LABELLED) * SIZE**2 * 3
    assert report.memory.semi_supervised == report.memory.supervised + 16 * SIZE**2


def test_record_says_what_the_text_says(clean, tmp_path):
    report = check_volume(clean, dataclasses.replace(OPTIONS, crop_size=512))
    record, text = report_record(report), report_text(report)
    assert json.loads(json.dumps(record)) == record
    assert record["warnings"] == 1 and "no errors, 1 warning" in text
    (finding,) = record["findings"]
    assert finding["message"] in text and finding["action"] in text
    assert "crop_size=64" in finding["action"]
    for label in record["labels"]:
        assert label["name"] in text
    assert "50, 16, 16 nm" in text and "from the source" in text and "3 nuclei_3.tif" in text
    assert record["voxel_size"] == [50.0, 16.0, 16.0]
    plot_report(tmp_path / "plot.png", report, clean)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("downsample", [1, 4])
def test_deleted_files_of_images_are_named(tmp_path, downsample):
    path = write(tmp_path / "v.zarr", downsample=downsample)
    level = "1" if downsample == 4 else "0"
    shutil.rmtree(path / level / "c" / "7")
    finding = found(check_volume(path, OPTIONS), "missing_slices")
    assert (finding.severity, finding.slices) == (ERROR, (7,))


def test_deleted_and_damaged_labels_are_named(tmp_path):
    path = write(tmp_path / "v.zarr")
    shutil.rmtree(path / "labels" / "nuclei" / "0" / "c" / "6")
    shard = path / "labels" / "nucleoli" / "0" / "c" / "9" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    report = check_volume(path, OPTIONS)
    assert found(report, "missing_labels").slices == (6,)
    assert found(report, "damaged_labels").slices == (9,)
    assert not report.passes(strict=False)


def test_damaged_and_replaced_images_are_named(tmp_path):
    path = write(tmp_path / "v.zarr")
    shard = path / "0" / "c" / "4" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    shutil.copy(path / "0" / "c" / "5" / "0" / "0", path / "0" / "c" / "6" / "0" / "0")
    shape = open_array(path / "0").shape
    assert shape == (DEPTH, SIZE, SIZE)
    report = check_volume(path, OPTIONS)
    assert found(report, "damaged_slices").slices == (4,)
    assert "changed_slices" not in topics(report)  # another slice of the same stack looks alike
    lit = write(tmp_path / "lit.zarr", images=lambda z: image(z) // 2)
    shutil.copy(lit / "0" / "c" / "5" / "0" / "0", path / "0" / "c" / "6" / "0" / "0")
    assert found(check_volume(path, OPTIONS), "changed_slices").slices == (6,)


def test_an_image_that_is_black_is_blank_and_not_missing(tmp_path):
    path = write(tmp_path / "v.zarr", images=lambda z: image(z) * (z != 8))
    report = check_volume(path, OPTIONS)
    assert topics(report) == {"blank_slices"}
    assert found(report, "blank_slices").slices == (8,)


def _brighter(amount):
    return lambda z: np.clip(image(z) + amount(z), 1, 254).astype(np.uint8)


@pytest.mark.parametrize(
    ("topic", "images", "slices"),
    [
        ("copied_slices", lambda z: image(10 if z == 11 else z), (11,)),
        ("outlier_slices", _brighter(lambda z: 30.0 * (z == 9)), (9,)),
        ("jumps", _brighter(lambda z: 40.0 * (z >= 12)), (12,)),
        ("drift", _brighter(lambda z: 2.5 * z), ()),
        ("saturated_black", lambda z: np.where(np.arange(SIZE) < 9, 0, image(z)), ()),
        ("saturated_white", lambda z: np.where(np.arange(SIZE) < 9, 255, image(z)), ()),
        ("low_contrast", lambda z: (image(z) / 20).astype(np.uint8), ()),
        ("labelled_unlike_others", _brighter(lambda z: 25.0 * (z in LABELLED)), ()),
    ],
)
def test_grey_values(tmp_path, topic, images, slices):
    path = write(tmp_path / "v.zarr", images=lambda z: images(z).astype(np.uint8))
    finding = found(check_volume(path, OPTIONS), topic)
    assert finding.severity == WARNING
    assert finding.slices == slices


def _empty(z):
    return np.zeros((SIZE, SIZE), bool)


def _exchanged(z):
    return nuclei({3: 12, 12: 3}.get(z, z))


@pytest.mark.parametrize(
    ("topic", "mask", "labelled", "slices"),
    [
        ("absent_structure", _empty, LABELLED, LABELLED),
        ("no_labels", nuclei, (), ()),
        ("few_labels", nuclei, (5, 15), (5, 15)),
        ("scarce_structure", lambda z: nuclei(z) & (np.arange(SIZE) % 20 == 0), (3, 9, 15), ()),
        ("copied_labels", lambda z: nuclei(3 if z == 9 else z), LABELLED, (3, 9)),
        ("full_labels", lambda z: nuclei(z) | (z == 6), LABELLED, (6,)),
        ("uneven_labels", nuclei, (0, 1, 2, 3, 4), ()),
        ("isolated_labels", lambda z: nuclei(z) & (z % 8 == 4), range(DEPTH), (4, 12, 20)),
        ("deviating_labels", lambda z: nuclei(z) & (z != 7), range(DEPTH), (7,)),
        ("exchanged_labels", _exchanged, LABELLED, (3, 12)),
        ("mirrored_labels", lambda z: nuclei(z)[::-1], LABELLED, LABELLED),
    ],
)
def test_labels(tmp_path, topic, mask, labelled, slices):
    path = write(tmp_path / "v.zarr", labels={"nuclei": mask}, slices=labelled)
    finding = found(check_volume(path, OPTIONS), topic)
    assert finding.slices == tuple(slices)
    expected = ERROR if topic in ("absent_structure", "no_labels") else WARNING
    assert finding.severity == expected


@pytest.mark.parametrize(
    "painted",
    [range(0, DEPTH, 2), range(0, DEPTH, 3), range(1, DEPTH, 5), [9], range(8, 14), range(6)],
)
def test_painted_slices_of_a_stack_are_found_at_any_spacing(tmp_path, painted):
    def mask(z):
        return nuclei(z) & (z in painted)

    path = write(tmp_path / "v.zarr", labels={"nuclei": mask}, slices=range(DEPTH))
    warned = topics(check_volume(path, OPTIONS)) & {"empty_slices", "isolated_labels"}
    assert len(warned) == 1
    finding = found(check_volume(path, OPTIONS), *warned)
    assert finding.severity == WARNING
    assert "--unlabelled_slices=nuclei=empty" in finding.action
    metadata = path / "labels" / "nuclei" / "zarr.json"
    record = json.loads(metadata.read_text())
    record["attributes"]["vemseg"]["unlabelled_slices"] = "none"
    metadata.write_text(json.dumps(record))
    settled = topics(check_volume(path, OPTIONS))
    assert not settled & {"empty_slices", "isolated_labels"}


def test_structures_that_end_are_no_empty_slices(tmp_path):
    def mask(z):
        y, x = np.mgrid[:SIZE, :SIZE]
        return (y - 30) ** 2 + (x - 30) ** 2 + 9 * (z - 12) ** 2 < 24**2

    path = write(tmp_path / "v.zarr", labels={"nuclei": mask}, slices=range(DEPTH))
    report = check_volume(path, OPTIONS)
    assert report.labels[0].empty
    assert not topics(report) & {"empty_slices", "isolated_labels"}


def test_labels_carried_on_to_the_next_slice_are_no_copies(tmp_path):
    path = write(tmp_path / "v.zarr", labels={"nuclei": lambda z: nuclei(z // 2 * 2)})
    assert "copied_labels" not in topics(check_volume(path, OPTIONS))


def test_labels_of_several_structures(tmp_path):
    path = write(tmp_path / "a.zarr", labels={"nuclei": nucleoli, "nucleoli": nuclei})
    assert found(check_volume(path, OPTIONS), "nucleoli_outside_nuclei").slices == LABELLED
    path = write(tmp_path / "b.zarr", labels={"nuclei": nuclei, "nucleoli": nuclei})
    assert found(check_volume(path, OPTIONS), "same_labels").slices == LABELLED
    path = write(tmp_path / "t.zarr", labels={"nuclei": nuclei, "nuclei_truth": nuclei})
    assert check_volume(path, OPTIONS).findings == ()
    path = write(tmp_path / "c.zarr", labels={})
    assert found(check_volume(path, OPTIONS), "no_labels").severity == ERROR


def test_ignore_mask(tmp_path):
    path = write(
        tmp_path / "v.zarr", ignore=lambda z: np.arange(SIZE)[:, None] >= 16 + 0 * nuclei(z)
    )
    report = check_volume(path, OPTIONS)
    assert report.ignored == 0.75
    assert found(report, "mostly_ignored").severity == WARNING
    kept = nuclei(3)[:16]
    assert report.labels[0].shares[1] == kept.sum() / kept.size
    shutil.rmtree(path / "labels" / "ignore" / "0" / "c" / "5")
    assert found(check_volume(path, OPTIONS), "missing_ignore").slices == (5,)


@pytest.mark.parametrize("size", [(0.05, 0.016, 0.016), (16, 16, 50), (50, 16, 20), (900, 16, 16)])
def test_voxel_size(tmp_path, size):
    path = write(tmp_path / "v.zarr", voxel_size=size)
    assert topics(check_volume(path, OPTIONS)) == {"voxel_size"}


def test_slice_names(tmp_path):
    names = [f"s_{z + (z > 9)}.tif" for z in range(DEPTH)]
    path = write(tmp_path / "v.zarr", names=names)
    assert "10 missing" in found(check_volume(path, OPTIONS), "slice_names").message
    for z_range, missing in (((0, 1), False), ((0, 10), False), ((9, 11), True), ((10, 24), False)):
        options = dataclasses.replace(OPTIONS, z_range=z_range)
        assert ("slice_names" in topics(check_volume(path, options))) == missing


@pytest.mark.parametrize(("memory", "read"), [(4 * 90_000, 2), (4 * 150_000, 1), (4 * 163_840, 0)])
def test_what_does_not_fit_is_read_as_training_goes(clean, memory, read):
    report = check_volume(clean, dataclasses.replace(OPTIONS, memory=memory))
    text = report_text(report)
    assert report.count(ERROR) == report.count(WARNING) == 0
    assert text.count("crops read as training goes") == read
    assert text.count(", fits") == 2 - read


def test_range_structures_and_sampling(clean):
    options = dataclasses.replace(OPTIONS, structures=["nucleoli"], z_range=(3, 21), every=5)
    report = check_volume(clean, options)
    assert [label.name for label in report.labels] == ["nucleoli"]
    assert report.labels[0].slices == (3, 6, 9, 12, 15, 18)
    assert report.others == ("nuclei",)
    assert report.images.checked == (3, 8, 13, 18)
    with pytest.raises(InputError, match="no label 'cells'"):
        check_volume(clean, dataclasses.replace(OPTIONS, structures=["cells"]))
    with pytest.raises(InputError, match="--z_range=3:90"):
        check_volume(clean, dataclasses.replace(OPTIONS, z_range=(3, 90)))


def test_slice_list():
    assert slice_list([9, 1, 2, 3, 7]) == "1-3, 7, 9"
    assert slice_list(range(0, 100, 5)) == "0, 5, 10, 15, 20, 25, 30, … 95 (20 slices)"


def test_host_memory_heeds_the_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n")
    assert host_memory(meminfo=meminfo, cgroup=tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("400000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    assert host_memory(meminfo=meminfo, cgroup=tmp_path) == 150000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(meminfo=meminfo, cgroup=tmp_path) == 500 * 1024
    assert device_memory() > 2**20


def test_training_scale_is_read(tmp_path):
    path = write(tmp_path / "v.zarr", downsample=4)
    report = check_volume(path, dataclasses.replace(OPTIONS, crop_size=16))
    label = open_volume(path).label("nuclei", TRAINING)
    assert report.labels[0].pixels[1] == int((label[3].read().result() == 1).sum())
    assert "missing_slices" not in topics(report)
