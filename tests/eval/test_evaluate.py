import csv
import json

import numpy as np
import pytest
from matplotlib import image as images

from tests.eval import volumes
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.slices import read_slices
from vemseg_jax.data.store.volume import FULL, TRAINING, open_array
from vemseg_jax.data.store.volume_writer import PREDICTION, create_label
from vemseg_jax.errors import InputError
from vemseg_jax.eval import comparison, overlay
from vemseg_jax.eval.evaluate import evaluate

# A nucleus 40 wide that is predicted 8 to the right overlaps by 32.
NUCLEI_DICE = 2 * 32 / 80


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume that tests only read."""
    return volumes.write_volume(tmp_path_factory.mktemp("volume") / "stack.zarr")


@pytest.fixture
def pictures():
    """Asked for by the tests that look at the pictures; the others do without, to be quick."""


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        for name in ("plot_dice_per_slice", "draw_overlay"):
            monkeypatch.setattr(f"vemseg_jax.eval.evaluate.{name}", lambda *_, **__: None)


def rows_of(result):
    return {(row.title, row.z_range): row for row in result.rows}


def slices_csv(folder, structure):
    with (folder / f"per_slice_{structure}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_by_hand(volume, tmp_path):
    found = rows_of(evaluate(volume, output=tmp_path / "out"))
    nuclei, nucleoli = found["nuclei", "all"], found["nucleoli", "all"]
    assert nuclei.score.slices == 9
    assert (nuclei.excluded_training, nuclei.excluded_validation) == (2, 1)
    assert nuclei.score.truth == 9 * 8 * 10
    assert nuclei.score.common == 9 * 8 * 8
    assert nuclei.score.dice_3d == NUCLEI_DICE
    assert nuclei.score.precision == nuclei.score.recall == 0.8
    # Slices 3 to 8 without 6 hold nucleoli; slice 2 is predicted although it holds none.
    assert nucleoli.score.structure_slices == 5
    assert nucleoli.score.dice_3d == 2 * 5 / (5 + 6)
    assert nucleoli.score.dice_3d_structure_slices == 1
    assert nucleoli.score.average_dice_2d == 1


def test_trained_slices_never_raise_the_score(volume, tmp_path):
    # Slices 0 and 11 are predicted without a mistake because they were trained on.
    result = evaluate(volume, output=tmp_path / "out")
    assert rows_of(result)["nuclei", "all"].score.dice_3d == NUCLEI_DICE
    lines = slices_csv(tmp_path / "out", "nuclei")
    assert [line["z"] for line in lines if line["role"] == "train"] == ["0", "11"]
    assert [line["z"] for line in lines if line["role"] == "validation"] == ["6"]
    assert float(lines[0]["dice_2d"]) == 1
    assert float(lines[1]["dice_2d"]) == pytest.approx((2 * 64 + 1) / (160 + 1), abs=1e-6)
    assert lines[1]["slice"] == "slice_01.tif"


def test_full_resolution_on_request(volume, tmp_path):
    score = rows_of(evaluate(volume, output=tmp_path / "out", level=FULL))["nuclei", "all"].score
    assert score.truth == 9 * 32 * 40
    assert score.dice_3d == NUCLEI_DICE


def test_ranges_have_rows_of_their_own(volume, tmp_path):
    ranges = [(0, 4), (4, 12)]
    found = rows_of(evaluate(volume, output=tmp_path / "out", z_ranges=ranges))
    first, second = found["nucleoli", "0:4"], found["nucleoli", "4:12"]
    assert first.score.slices == 3
    assert second.score.slices == 6
    assert first.score.dice_3d == 2 / 3
    assert second.score.dice_3d == 1
    assert (first.excluded_training, first.excluded_validation) == (1, 0)
    assert (second.excluded_training, second.excluded_validation) == (1, 1)
    assert found["nucleoli", "all"].score.slices == 9


def test_unlabelled_slices_are_not_background(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", labelled=(0, 1, 5, 11))
    score = rows_of(evaluate(path))["nuclei", "all"].score
    assert score.slices == 2
    assert score.dice_3d == NUCLEI_DICE
    assert [line["z"] for line in slices_csv(tmp_path / "stack-evaluation", "nuclei")] == [
        "0",
        "1",
        "5",
        "11",
    ]


def test_slices_that_the_prediction_does_not_cover_are_not_scored(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", covered=range(4))
    result = evaluate(path)
    assert rows_of(result)["nuclei", "all"].score.slices == 3
    assert "8 labelled slices of 'nuclei' are not covered by 'nuclei_pred'" in result.text


def test_ignored_pixels_do_not_count(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", ignore=True)
    result = evaluate(path)
    score = rows_of(result)["nuclei", "all"].score
    # In slice 4 the wrong columns 48 to 55 are ignored: two training columns of eight rows.
    assert score.predicted == 9 * 80 - 16
    assert score.truth == 9 * 80
    assert score.pixels == 9 * 16 * 24 - 16 * 12
    share = 100 * 16 * 12 / (9 * 16 * 24)
    assert f"{share:.2f} % of the scored slices" in result.text


def test_a_slice_that_is_ignored_throughout_is_not_a_scored_slice(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr")
    with create_label(path, "ignore", kind="ignore") as label:
        label.write_mask(3, np.ones((volumes.HEIGHT, volumes.WIDTH), np.uint8))
    result = evaluate(path)
    assert rows_of(result)["nuclei", "all"].score.slices == 8
    assert "slices without a pixel that counts, left out: 1" in result.text


def test_exclude_replaces_the_recorded_training_slices(volume, tmp_path):
    result = evaluate(volume, output=tmp_path / "out", exclude=[1, 2])
    row = rows_of(result)["nuclei", "all"]
    assert (row.score.slices, row.excluded_training, row.excluded_validation) == (9, 2, 1)
    assert row.score.dice_3d > NUCLEI_DICE
    assert "CAUTION" in result.text
    assert "scored: 0, 11" in result.text
    assert "CAUTION" not in evaluate(volume, output=tmp_path / "o", exclude=[0, 2, 11]).text


def test_another_label_as_truth(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", labelled=(0, 11))
    with pytest.raises(InputError, match=r"all 2 slices .*; label more slices, or train with"):
        evaluate(path)
    for structure in ("nuclei", "nucleoli"):
        with create_label(path, f"{structure}_truth") as label:
            for z in range(volumes.DEPTH):
                label.write_mask(z, getattr(volumes, structure)(z))
    truth = {"nuclei": "nuclei_truth", "nucleoli": "nucleoli_truth"}
    row = rows_of(evaluate(path, truth=truth))["nuclei", "all"]
    assert (row.truth, row.score.slices, row.score.dice_3d) == ("nuclei_truth", 9, NUCLEI_DICE)


def _info(**changes):
    return {"structure": "nuclei", "training_slices": [0, 11], "validation_slices": [6], **changes}


def test_the_report_says_how_the_training_volume_was_recognised(tmp_path):
    text = "made from the same images by vemseg-preprocess"
    info = _info(known_by=[text], doubts=[], training_volume="raw.zarr")
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",), attributes=info)
    result = evaluate(path)
    row = rows_of(result)["nuclei", "all"]
    assert (row.score.slices, row.excluded_training, row.excluded_validation) == (9, 2, 1)
    assert f"training volume recognised (raw.zarr; {text})" in result.text
    labelled = volumes.write_volume(
        tmp_path / "all.zarr", predictions=("nuclei",), attributes=info, labelled=(0, 6, 11)
    )
    with pytest.raises(InputError, match=rf"all 3 slices .* were used for training .*\({text}\)"):
        evaluate(labelled)


def test_a_doubt_names_the_slices_to_leave_out(tmp_path):
    doubt = {"text": "slices of the same number", "volume": "raw.zarr", "slices": [1, 2]}
    info = _info(training_slices=[], validation_slices=[], known_by=[], doubts=[doubt])
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",), attributes=info)
    result = evaluate(path)
    assert "CAUTION: 'nuclei_pred' is of a network trained on raw.zarr" in result.text
    assert "--exclude=1,2" in result.text
    left_out = evaluate(path, exclude=[1, 2], output=tmp_path / "out")
    assert "CAUTION" not in left_out.text
    summary = json.loads((tmp_path / "stack-evaluation" / "summary.json").read_text())
    assert any("--exclude=1,2" in note for note in summary["notes"])


def test_a_prediction_of_an_earlier_version_on_a_preprocessed_copy(tmp_path):
    """It records no training slices: they were known by the fingerprint of the images alone."""
    raw = volumes.write_volume(tmp_path / "raw.zarr", predictions=())
    copy = preprocess(raw, tmp_path / "copy.zarr", PreprocessOptions(histogram="equalize"))
    info = _info(training_slices=[], validation_slices=[], training_volume=str(raw))
    with create_label(copy, "nuclei_pred", kind=PREDICTION, attributes=info) as label:
        for z in range(volumes.DEPTH):
            label.write_mask(z, volumes.nuclei(z))
    text = evaluate(copy).text
    assert f"its network was trained on {raw}, which shows the same images" in text
    assert "CAUTION" not in evaluate(copy, exclude=[0, 11], output=tmp_path / "out").text


def test_images_that_semi_supervised_training_saw_are_counted(tmp_path):
    info = _info(known_by=["the same images"], doubts=[], seen_unlabelled_slices=[1, 2, 3, 4])
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",), attributes=info)
    result = evaluate(path, z_ranges=[(0, 3), (5, 12)])
    assert "of the 9 scored slices 4 were seen in training, as images without" in result.text
    assert "--config.data.z_range=FIRST,END" in result.text
    summary = json.loads((tmp_path / "stack-evaluation" / "summary.json").read_text())
    seen = [row["scored_slices_seen_without_label"] for row in summary["scores"]]
    assert seen == [4, 2, 0]


def test_a_truth_that_a_network_predicted_is_named(tmp_path):
    raw = volumes.write_volume(tmp_path / "raw.zarr")
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",))
    for name, source in (("drawn", "nuclei"), ("predicted", "nuclei_pred")):
        attributes = {"source": str(raw / "labels" / source)}
        with create_label(path, name, attributes=attributes) as label:
            for z in range(volumes.DEPTH):
                label.write_mask(z, volumes.nuclei(z))
    text = evaluate(path, truth={"nuclei": "predicted"}).text
    assert "CAUTION: the truth 'predicted' was converted from" in text
    drawn = evaluate(path, truth={"nuclei": "drawn"}, output=tmp_path / "out")
    assert "CAUTION" not in drawn.text


def test_two_predictions_of_a_structure_are_kept_apart(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",))
    info = {"structure": "nuclei", "training_slices": [0], "validation_slices": []}
    with create_label(path, "other_pred", kind=PREDICTION, attributes=info) as label:
        for z in range(volumes.DEPTH):
            label.write_mask(z, volumes.nuclei(z))
    found = rows_of(evaluate(path))
    assert found["other_pred", "all"].score.dice_3d == 1
    assert found["nuclei_pred", "all"].score.dice_3d == NUCLEI_DICE
    names = {file.name for file in (tmp_path / "stack-evaluation").glob("per_slice_*")}
    assert names == {"per_slice_other_pred.csv", "per_slice_nuclei_pred.csv"}
    only = evaluate(path, predictions=["other_pred"], output=tmp_path / "only")
    assert set(rows_of(only)) == {("nuclei", "all")}


@pytest.mark.parametrize("levels", [(FULL,), (TRAINING,)])
def test_the_level_is_the_one_the_prediction_has(tmp_path, levels):
    path = volumes.write_volume(tmp_path / "stack.zarr", levels=levels)
    score = rows_of(evaluate(path))["nuclei", "all"].score
    assert score.truth == 9 * (32 * 40 if levels == (FULL,) else 80)
    other = TRAINING if levels == (FULL,) else FULL
    with pytest.raises(InputError, match=f"has no level '{other}'"):
        evaluate(path, level=other, output=tmp_path / "other")


def test_volume_at_one_scale(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", downsample=1)
    assert rows_of(evaluate(path))["nuclei", "all"].score.truth == 9 * 32 * 40


def test_folder(volume, tmp_path, pictures):
    result = evaluate(volume, output=tmp_path / "out", z_ranges=[(0, 4)])
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "summary.md",
        "summary.json",
        "per_slice_nuclei.csv",
        "per_slice_nucleoli.csv",
        "dice_per_slice.png",
        "overlay_nuclei.png",
        "overlay_nucleoli.png",
    }
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["voxel_size_nm"] == [50, 16, 16]
    assert [(s["structure"], s["z_range"]) for s in summary["scores"]] == [
        ("nuclei", "all"),
        ("nuclei", "0:4"),
        ("nucleoli", "all"),
        ("nucleoli", "0:4"),
    ]
    assert summary["scores"][0]["dice_3d"] == NUCLEI_DICE
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "0.8000" in text
    assert "left out of every score: training slices 0, 11; validation slices 6" in text
    assert "0.8000" in result.text
    size = overlay.panel_size((16, 24), pixel_size=(64, 64))
    picture = images.imread(tmp_path / "out" / "overlay_nuclei.png")
    assert picture.shape[:2] == overlay.figure_size(3, size, entries=2)
    assert picture[..., :3].std() > 0.1
    plot = images.imread(tmp_path / "out" / "dice_per_slice.png")
    assert plot.shape == (960, 1440, 4)
    assert plot[..., :3].std() > 0.05


def test_chosen_overlay_slices(volume, tmp_path, pictures):
    evaluate(volume, output=tmp_path / "out", overlay_slices=[0, 4, 5, 7])
    size = overlay.panel_size((16, 24), pixel_size=(64, 64))
    picture = images.imread(tmp_path / "out" / "overlay_nuclei.png")
    assert picture.shape[:2] == overlay.figure_size(4, size, entries=2)


def test_reads_every_slice_once_in_order(volume):
    array = open_array(volume / "0")
    for zs in ([], [3], [1, 2, 4, 5, 9, 11]):
        read = list(read_slices([array, array], zs))
        assert [z for z, _ in read] == zs
        for z, (one, other) in read:
            np.testing.assert_array_equal(one, array[z].read().result())
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"predictions": ["nuclei"]}, r"'nuclei' is no predicted label .*nuclei_pred"),
        ({"truth": {"mitochondria": "m"}}, r"--truth: found .*mitochondria"),
        ({"truth": {"nuclei": "absent"}}, r"'absent' .*no such label; give --truth=nuclei=nuclei"),
        ({"truth": {"nuclei": "nuclei_pred"}}, r"a label of kind 'prediction'"),
        ({"z_ranges": [(0, 13)]}, r"--z_ranges: found 0:13; .* has 12 slices"),
        ({"z_ranges": [(4, 4)]}, r"--z_ranges: found 4:4"),
        ({"z_ranges": [(-1, 4)]}, r"--z_ranges: found -1:4"),
        ({"exclude": [12]}, r"--exclude: found slice 12; .* 0 to 11"),
        ({"exclude": range(12)}, r"all 12 slices labelled in 'nuclei'"),
        ({"overlay_slices": [-1]}, r"--overlay_slices: found slice -1"),
        ({"level": "half"}, r"--level: found 'half'"),
    ],
)
def test_bad_arguments(volume, tmp_path, arguments, match):
    with pytest.raises(InputError, match=match) as error:
        evaluate(volume, output=tmp_path / "out", **arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_no_prediction(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=())
    with pytest.raises(InputError, match=r"no predicted label .*make one with vemseg-predict"):
        evaluate(path)


@pytest.mark.parametrize(
    ("attributes", "match"),
    [({}, "does not record its structure"), ({"structure": "nuclei"}, "its training slices")],
)
def test_prediction_without_provenance(tmp_path, attributes, match):
    path = volumes.write_volume(
        tmp_path / "stack.zarr", predictions=("nuclei",), attributes=attributes
    )
    with pytest.raises(InputError, match=match):
        evaluate(path)


def test_unrecorded_training_slices_can_be_given(tmp_path):
    path = volumes.write_volume(
        tmp_path / "stack.zarr", predictions=("nuclei",), attributes={"structure": "nuclei"}
    )
    assert rows_of(evaluate(path, exclude=[0, 11]))["nuclei", "all"].score.slices == 10


def test_prediction_with_unlabelled_pixels(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=())
    info = {"structure": "nuclei", "training_slices": [0], "validation_slices": []}
    with create_label(
        path, "nuclei_pred", levels=(FULL,), kind=PREDICTION, attributes=info
    ) as label:
        label.write(3, FULL, np.full((volumes.HEIGHT, volumes.WIDTH), 255, np.uint8))
    with pytest.raises(InputError, match=r"slice 3 .*prediction holds the values \[255\]"):
        evaluate(path)
    assert [file.name for file in tmp_path.iterdir()] == ["stack.zarr"]


def test_shapes_that_differ(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",))
    metadata = path / "labels" / "nuclei_pred" / "1" / "zarr.json"
    attributes = json.loads(metadata.read_text())
    attributes["shape"][0] = 11
    metadata.write_text(json.dumps(attributes))
    with pytest.raises(InputError, match=r"differ in shape .*nuclei_pred \(11, 16, 24\)"):
        evaluate(path)


def test_damaged_slice(tmp_path):
    path = volumes.write_volume(tmp_path / "stack.zarr", predictions=("nuclei",))
    shard = path / "labels" / "nuclei_pred" / "1" / "c" / "3" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:10])
    with pytest.raises(InputError, match=r"slice 3 is damaged"):
        evaluate(path)
    assert [file.name for file in tmp_path.iterdir()] == ["stack.zarr"]


def test_existing_output(volume, tmp_path, pictures):
    evaluate(volume, output=tmp_path / "out")
    with pytest.raises(InputError, match="exists; name another folder or give --overwrite"):
        evaluate(volume, output=tmp_path / "out")
    evaluate(volume, output=tmp_path / "out", overwrite=True, predictions=["nuclei_pred"])
    assert not (tmp_path / "out" / "overlay_nucleoli.png").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_foreign_folders_are_never_replaced(volume, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no earlier evaluation"):
        evaluate(volume, output=tmp_path / "thesis", overwrite=True)
    for output in (volume, volume / "labels" / "x", volume.parent):
        with pytest.raises(InputError, match="overlaps the volume"):
            evaluate(volume, output=output, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_failure_keeps_the_earlier_evaluation(volume, tmp_path, monkeypatch):
    evaluate(volume, output=tmp_path / "out")
    before = (tmp_path / "out" / "summary.json").read_text()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("vemseg_jax.eval.evaluate.draw_overlay", fail)
    with pytest.raises(OSError, match="disk full"):
        evaluate(volume, output=tmp_path / "out", overwrite=True, exclude=[1])
    assert (tmp_path / "out" / "summary.json").read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("annotations", "advice", "never"),
    [
        ([], "no annotation: convert it again with --labels=nucleoli=PATH", "--truth"),
        (["nucleoli", "nucleoli_truth"], "give --truth=nucleoli=nucleoli, or another of", "LABEL"),
        # Nuclei are no truth of nucleoli; only the user knows what other names stand for.
        (["nuclei"], "if one of them is nucleoli under another name", "LABEL"),
    ],
)
def test_what_is_advised_where_a_structure_has_no_truth(annotations, advice, never):
    text = comparison._other_truth(annotations, "nucleoli")
    assert advice in text and never not in text
