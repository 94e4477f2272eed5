import shutil

import numpy as np
import pytest

from tests.train.runs import small_config, write_volume
from vemseg_jax.data.store.downsample import downsample_mask
from vemseg_jax.data.store.label_writer import create_label
from vemseg_jax.data.store.volume import FULL, TRAINING, open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import tiling
from vemseg_jax.infer.job import PredictOptions
from vemseg_jax.infer.predict import predict_volume
from vemseg_jax.infer.predictor import Method, make_planner, make_predictor
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.infer.windows import plan_windows
from vemseg_jax.models.registry import create_model
from vemseg_jax.resize import enlarge
from vemseg_jax.train.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained at 4x, and its volume."""
    folder = tmp_path_factory.mktemp("trained")
    volume = write_volume(folder / "v.zarr", downsample=4, size=(40, 45))
    train(small_config(volume, steps=2), folder / "run")
    return volume, folder / "run"


def test_every_slice_is_the_thresholded_sliding_window(trained):
    path, workdir = trained
    result = predict_volume(path, workdir)
    assert (result.names, result.complete, result.failed) == (["nuclei_pred"], True, {})
    volume, network = open_volume(path), load_trained(workdir, None)
    found = volume.label("nuclei_pred", TRAINING).read().result()
    assert found.shape == (6, 40, 45)
    description = network.description
    plan = plan_windows((40, 45), kernel=32, stride=8).over()
    model = create_model(description.model)
    forward = tiling.make_forward(model.apply, network.variables)
    image = volume.image(TRAINING)[4].read().result().astype(np.float32)
    norm = description.normalization
    image = (image / 255 - norm.mean) / norm.std
    prob = np.asarray(tiling.predict_planes(forward, image[None], plan=plan, batch_size=3)[0])
    near = np.abs(prob[..., 0] - 0.5) < 1e-5
    np.testing.assert_array_equal(found[4][~near], (prob[..., 0] > 0.5)[~near])


def test_the_result_says_where_it_came_from(trained):
    path, workdir = trained
    predict_volume(path, workdir, options=PredictOptions(suffix="_again_pred"))
    info = open_volume(path).label_info("nuclei_again_pred")
    assert info["kind"] == "prediction" and info["structure"] == "nuclei"
    assert info["training_slices"] == [0, 5] and info["validation_slices"] == [2]
    assert info["labelled_slices"] == list(range(6))


def test_training_slices_are_known_wherever_the_volume_lies(trained, tmp_path):
    path, workdir = trained
    moved = shutil.copytree(path, tmp_path / "elsewhere.zarr")
    options = PredictOptions(suffix="_moved_pred")
    predict_volume(moved, workdir, options=options)
    info = open_volume(moved).label_info("nuclei_moved_pred")
    assert info["training_slices"] == [0, 5] and info["validation_slices"] == [2]
    other = write_volume(tmp_path / "other.zarr", seed=1, downsample=4, size=(40, 45))
    predict_volume(other, workdir, options=options)
    assert open_volume(other).label_info("nuclei_moved_pred")["training_slices"] == []


def test_chosen_slices_leave_the_others_unlabelled(trained):
    path, workdir = trained
    predict_volume(path, workdir, slices=(1, 3), options=PredictOptions(suffix="_some_pred"))
    volume = open_volume(path)
    assert volume.labelled_slices("nuclei_some_pred") == (1, 3)
    found = volume.label("nuclei_some_pred", TRAINING).read().result()
    assert set(np.unique(found[[1, 3]])) <= {0, 1}
    assert np.all(found[[0, 2, 4, 5]] == 255)


def test_full_resolution_comes_with_the_training_scale(trained):
    path, workdir = trained
    options = PredictOptions(resolution=FULL, suffix="_full_pred")
    predict_volume(path, workdir, slices=(1,), options=options)
    volume = open_volume(path)
    full = volume.label("nuclei_full_pred", FULL)[1].read().result()
    assert full.shape == (160, 180)
    small = volume.label("nuclei_full_pred", TRAINING)[1].read().result()
    np.testing.assert_array_equal(small, downsample_mask(full))
    prob = _predicted(trained, Method(), level=FULL)[1]
    near = np.abs(prob - 0.5) < 1e-5
    np.testing.assert_array_equal(full[~near], (prob > 0.5)[~near])


def _predicted(trained, method, level=TRAINING):
    """Probabilities of all slices at a level by a method, `[z, h, w]`."""
    volume, network = open_volume(trained[0]), load_trained(trained[1], None)
    scale, shape = 4 if level == FULL else 1, volume.plane_shape(level)
    predict = make_predictor(network, method, scale=scale, batch_size=4)
    plan = make_planner(method, network, shape=shape, scale=scale, part=shape).over()
    image, normalization = volume.image(level).read().result(), network.description.normalization
    return np.asarray(predict(image, plan, normalization)[..., 0])


def test_whole_slices_pass_the_network_once(trained):
    whole = _predicted(trained, Method("whole"))
    network = load_trained(trained[1], None)
    model, norm = create_model(network.description.model), network.description.normalization
    image = open_volume(trained[0]).image(TRAINING).read().result() / 255
    padded = np.pad((image - norm.mean) / norm.std, ((0, 0), (32, 56), (32, 51)), mode="reflect")
    once = model.apply(network.variables, padded[..., None].astype(np.float32), train=False)
    expected = np.asarray(once["prob"])[:, 32:72, 32:77, 0]
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("resolution", [TRAINING, FULL])
def test_the_method_is_recorded_and_printed(trained, capsys, resolution):
    path, workdir = trained
    options = PredictOptions(
        resolution=resolution, suffix=f"_whole_{resolution}", method=Method("whole")
    )
    predict_volume(path, workdir, slices=(1, 2), options=options)
    volume = open_volume(path)
    assert volume.label_info(f"nuclei_whole_{resolution}")["method"].startswith("whole slices")
    assert "method      whole slices at training scale" in capsys.readouterr().out
    found = volume.label(f"nuclei_whole_{resolution}", resolution)[1].read().result()
    prob = _predicted(trained, Method("whole"))[1]
    if resolution == FULL:
        prob = np.asarray(enlarge(prob[None, ..., None], 4, (160, 180)))[0, ..., 0]
    near = np.abs(prob - 0.5) < 1e-5
    np.testing.assert_array_equal(found[~near], (prob > 0.5)[~near])


@pytest.mark.parametrize("size", [(160, 180), (161, 182), (163, 179)])
def test_probabilities_are_enlarged_between_the_centres_of_training_pixels(size):
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    h, w = ((n + 1) // 4 for n in size)
    rows, columns = np.mgrid[:h, :w] * 4 + 1.5
    coarse = (0.002 * rows + 0.001 * columns)[None, ..., None]
    fine = np.asarray(enlarge(coarse.astype(np.float32), 4, size))[0, ..., 0]
    assert fine.shape == size
    expected = 0.002 * np.clip(y, 1.5, 4 * h - 2.5) + 0.001 * np.clip(x, 1.5, 4 * w - 2.5)
    np.testing.assert_allclose(fine, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method("half"), "--method=half: must be one of window, whole"),
        (Method(overlap=1.0), r"--overlap=1: must be a share in \[0, 0.9\]"),
        (Method(blending="linear"), "--blending=linear"),
        (Method("whole", overlap=0.5), "belong to --method=window"),
    ],
)
def test_methods_that_make_no_sense(trained, method, message):
    with pytest.raises(InputError, match=message):
        predict_volume(*trained, options=PredictOptions(method=method))


def test_slices_smaller_than_a_crop_are_predicted(trained, tmp_path):
    path = write_volume(tmp_path / "small.zarr", size=(20, 33), downsample=4)
    predict_volume(path, trained[1])
    assert open_volume(path).label("nuclei_pred", TRAINING).shape == (6, 20, 33)


def test_an_existing_result_stays_unless_overwritten(trained):
    path, workdir = trained
    options = PredictOptions(suffix="_twice_pred")
    predict_volume(path, workdir, slices=(0,), options=options)
    message = r"nuclei_twice_pred: exists already from other .* \(another grid\); give --over"
    with pytest.raises(InputError, match=message):
        predict_volume(path, workdir, options=options)
    assert open_volume(path).labelled_slices("nuclei_twice_pred") == (0,)
    predict_volume(path, workdir, slices=(1,), options=options, overwrite=True)
    assert open_volume(path).labelled_slices("nuclei_twice_pred") == (1,)


def test_an_annotation_is_never_overwritten(trained):
    path, workdir = trained
    with create_label(path, "nuclei_mine") as label:
        label.write_mask(0, np.zeros((160, 180), np.uint8))
    options = PredictOptions(suffix="_mine")
    with pytest.raises(InputError, match="nuclei_mine"):
        predict_volume(path, workdir, options=options, overwrite=True)
    assert open_volume(path).label_info("nuclei_mine")["kind"] == "annotation"


def test_what_does_not_fit_is_refused(trained, tmp_path):
    path, workdir = trained
    other = write_volume(tmp_path / "coarse.zarr", downsample=1, size=(40, 45))
    predict_volume(other, workdir)  # 1x, but pixels of the same size: fits
    coarse = tmp_path / "v.zarr"
    from vemseg_jax.data.store.volume_writer import create_volume

    options = {"dtype": np.uint8, "voxel_size": (40, 99, 99), "downsample": 1}
    with create_volume(coarse, shape=(1, 40, 40), **options) as writer:
        writer.write(0, np.zeros((40, 40), np.uint8))
    with pytest.raises(InputError, match=r"pixels of 99 x 99 nm .* learned pixels of 40 x 40 nm"):
        predict_volume(coarse, workdir)
    with pytest.raises(InputError, match=r"--slices names \[6\]; .* has slices 0 to 5"):
        predict_volume(path, workdir, slices=(6,))
    with pytest.raises(InputError, match="holds no checkpoints"):
        predict_volume(path, tmp_path)
