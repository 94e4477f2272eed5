"""Every step with paths as users type them, from another folder than where things lie."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from tests.train import runs
from vemseg_jax.checkpoint import open_checkpoints
from vemseg_jax.data.check.volume import CheckOptions, check_volume
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.preprocess.volume import PreprocessOptions, preprocess
from vemseg_jax.data.store.volume import create_array, open_array, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.eval.evaluate import evaluate
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.verify import verify
from vemseg_jax.measure.measure import measure
from vemseg_jax.measure.options import Options
from vemseg_jax.train.loop import train
from vemseg_jax.train.volumes import with_absolute_volumes


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """`A` beside the current folder `B`, and a home folder."""
    for name in ("A", "B", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "B")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_convert_check_and_preprocess(folders):
    plane = np.random.default_rng(0).integers(0, 255, (3, 32, 40), np.uint8)
    tifffile.imwrite(folders / "A" / "my stack.tif", plane, photometric="minisblack")
    tifffile.imwrite(folders / "A" / "mask_1.tif", (plane[1] > 99).astype(np.uint8))
    (folders / "B" / "pairs.csv").write_text("structure,image,label\nnuclei,1,../A/mask_1.tif\n")
    options = ConvertOptions(
        voxel_size=(50, 40, 40),
        labels_csv="../B/pairs.csv",
        first_slice=0,
        ignore=None,
        downsample=1,
    )
    made = convert("../A/my stack.tif", "~/v.zarr", options)
    assert made == folders / "home" / "v.zarr"
    volume = open_volume("../home/v.zarr")
    assert volume.source == str(folders / "A" / "my stack.tif")
    assert volume.label_info("nuclei")["labelled_slices"] == [1]
    report = check_volume("~/v.zarr", CheckOptions(crop_size=32, memory=2**30))
    assert report.path == str(made)
    even = preprocess("~/v.zarr", "../A/even.zarr", PreprocessOptions(histogram="equalize"))
    assert even == folders / "A" / "even.zarr" and open_volume(even).shape == (3, 32, 40)


def test_train_elsewhere_predict_and_go_on_after_a_move(folders, monkeypatch):
    runs.write_volume(folders / "A" / "v.zarr")
    config = runs.small_config("../A/v.zarr", steps=2)
    train(config, "../A/run")
    with open_checkpoints("../A/run") as checkpoints:
        meta = checkpoints.meta("latest")
    recorded = str(folders / "A" / "v.zarr")
    assert meta["volume"] == meta["config"]["data"]["volume"] == recorded
    result = predict_volume("../A/v.zarr", "../A/run")
    assert result.complete and verify("../A/v.zarr")[0].is_sound
    assert evaluate("../A/v.zarr", exclude=[0]).output == folders / "A" / "v-evaluation"
    options = Options(nuclei="nuclei_pred", min_nucleus_um3=0)
    assert measure("../A/v.zarr", options, output="~/m").output == folders / "home" / "m"
    # From another folder, with the link of another name, it is the same run.
    monkeypatch.chdir(folders)
    train(runs.small_config("A/v.zarr", steps=2), "A/run")
    # So it is where the whole folder has moved; config.json says where it is now.
    shutil.move(folders / "A", folders / "home" / "A")
    train(runs.small_config("~/A/v.zarr", steps=2), "~/A/run")
    now = json.loads((folders / "home" / "A" / "run" / "config.json").read_text())
    assert now["data"]["volume"] == str(folders / "home" / "A" / "v.zarr")
    # Other images in its place are refused.
    other = runs.write_volume(folders / "home" / "w.zarr", seed=1)
    with pytest.raises(InputError, match="other data"):
        train(runs.small_config(other, steps=2), "~/A/run")


def test_arrays_by_relative_paths(folders):
    create_array("../A/a", shape=(1, 8, 8), dtype=np.uint8, fill_value=0)
    assert open_array("../A/a").shape == (1, 8, 8)


def test_a_volume_named_twice_through_a_link(folders):
    (folders / "B" / "link").symlink_to("../A")
    config = runs.small_config("../A/v.zarr")
    config.data.other_volumes = ("link/v.zarr",)
    with pytest.raises(InputError, match="is given twice or is data"):
        with_absolute_volumes(config)
