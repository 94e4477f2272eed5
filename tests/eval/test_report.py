import csv

import numpy as np
from matplotlib import image as images

from vemseg_jax.eval import report
from vemseg_jax.eval.dice_plot import ROLE_COLOURS, plot_dice_per_slice
from vemseg_jax.eval.metrics import SliceCounts


def some_slices():
    """Slices 0 to 9: 0 and 9 trained on, 5 for validation, 3 and 4 without structure."""
    roles = {0: report.TRAIN, 5: report.VALIDATION, 9: report.TRAIN}
    return [
        report.SliceScore(
            name=f"slice_{z}.tif",
            role=roles.get(z, report.TEST),
            counts=SliceCounts(
                z=z,
                truth=0 if z in (3, 4) else 100,
                predicted=10 if z == 3 else 0 if z == 4 else 100,
                common=0 if z in (3, 4) else 80 + z,
                pixels=1000,
            ),
        )
        for z in range(10)
    ]


def row(z_range=None, slices=None):
    return report.score_row(
        some_slices() if slices is None else slices,
        title="nuclei",
        structure="nuclei",
        prediction="nuclei_pred",
        truth="nuclei",
        z_range=z_range,
    )


def test_rows_score_test_slices_only():
    found = row()
    assert (found.score.slices, found.score.structure_slices) == (7, 5)
    assert (found.excluded_training, found.excluded_validation) == (2, 1)
    assert found.score.common == 81 + 82 + 86 + 87 + 88
    assert (found.score.truth, found.score.predicted) == (500, 510)


def test_ranges_are_half_open():
    found = row((5, 9))
    assert found.z_range == "5:9"
    assert found.score.slices == 3
    assert (found.excluded_training, found.excluded_validation) == (0, 1)


def test_table_is_aligned_markdown():
    table = report.render_table(
        [{"what": "nuclei", "z": "all", "Dice": "0.9"}, {"what": "x", "z": "0:5", "Dice": "-"}]
    )
    assert table.splitlines() == [
        "| what   | z   | Dice |",
        "| ------ | --- | ---: |",
        "| nuclei | all |  0.9 |",
        "| x      | 0:5 |    - |",
    ]
    assert report.render_table([]) == ""


def test_structure_slice_dice_is_shown_where_it_differs():
    cells = report.score_cells([row(), row((5, 9))])
    assert cells[0]["3D Dice"] == f"{2 * 424 / 1010:.4f}"
    assert cells[0]["3D Dice*"] == f"{2 * 424 / 1000:.4f}"
    assert cells[1]["3D Dice*"] == "-"
    assert "3D Dice*" in report.legend_text([row()])
    assert "3D Dice*" not in report.score_cells([row((5, 9))])[0]
    assert "3D Dice*" not in report.legend_text([row((5, 9))])


def test_record_has_no_nan():
    record = report.row_record(row((3, 3)))
    assert record["dice_3d"] is None
    assert record["slices_scored"] == 0
    assert report.row_record(row())["common_voxels"] == 424


def test_csv(tmp_path):
    report.write_slice_csv(tmp_path / "slices.csv", some_slices())
    with (tmp_path / "slices.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["z"] for line in lines] == [str(z) for z in range(10)]
    assert lines[0]["role"] == "train"
    assert lines[5]["role"] == "validation"
    assert lines[1] == {
        "z": "1",
        "slice": "slice_1.tif",
        "role": "test",
        "truth_voxels": "100",
        "predicted_voxels": "100",
        "common_voxels": "81",
        "dice_2d": f"{163 / 201:.6f}",
    }
    assert lines[3]["dice_2d"] == ""
    assert lines[3]["predicted_voxels"] == "10"


def has_colour(picture, colour):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return bool((np.abs(picture[..., :3] - rgb).max(-1) < 0.02).any())


def test_plot_marks_every_role(tmp_path):
    slices = some_slices()
    panels = {"nuclei": slices, "nucleoli": [s for s in slices if s.role == report.TEST]}
    rows = [row(), row((0, 5)), row((5, 10))]
    plot_dice_per_slice(tmp_path / "dice.png", panels, rows=rows, z_size=50.0)
    picture = images.imread(tmp_path / "dice.png")
    assert picture.shape == (960, 1440, 4)
    for colour in ROLE_COLOURS.values():
        assert has_colour(picture, colour)


def test_plot_has_only_the_roles_there_are(tmp_path):
    slices = [s for s in some_slices() if s.role != report.VALIDATION]
    plot_dice_per_slice(tmp_path / "dice.png", {"nuclei": slices})
    picture = images.imread(tmp_path / "dice.png")
    test, train, validation = ROLE_COLOURS.values()
    assert has_colour(picture, test)
    assert has_colour(picture, train)
    assert not has_colour(picture, validation)


def test_plot_of_slices_without_structure(tmp_path):
    slices = [s for s in some_slices() if s.counts.z in (3, 4)]
    plot_dice_per_slice(tmp_path / "dice.png", {"nuclei": slices}, rows=[row(slices=slices)])
    assert images.imread(tmp_path / "dice.png").std() > 0.01
