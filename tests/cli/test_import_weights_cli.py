"""Weights from torch through the binary, onto small volumes and networks."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.train.runs import write_volume
from vemseg_jax.infer.trained import load_trained
from vemseg_jax.models import registry, torch_import
from vemseg_jax.models.initial import initial_variables

ROOT = Path(__file__).parents[2]
MODEL = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": (8, 8, 8)}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("import") / "v.zarr")


@pytest.fixture(scope="module")
def network():
    """A UNet++ and its weights under torch's names."""
    config = registry.model_config("unetplusplus", **MODEL)
    variables = initial_variables(registry.create_model(config), seed=3, channels=1)
    state = torch_import.to_torch(config, variables["params"])
    return config, variables, state | torch_import.to_torch(config, variables["batch_stats"])


def _run(binary, *arguments):
    command = [sys.executable, "-m", f"vemseg_jax.cli.{binary}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def _arguments(volume, workdir):
    return [
        f"--config={ROOT}/configs/unetplusplus.py",
        *(f"--config.model.{name}={value}" for name, value in MODEL.items()),
        f"--config.data.volume={volume}",
        "--config.data.crop_size=32",
        "--config.train.batch_size=2",
        "--config.train.steps=1",
        f"--workdir={workdir}",
    ]


def test_imported_weights_predict_and_train_on(volume, network, tmp_path):
    _, variables, state = network
    unreached = {"encoder.layer4.0.conv1.weight": np.zeros((4, 4, 3, 3), np.float32)}
    wrapped = {f"module.{name}": np.ascontiguousarray(x) for name, x in (state | unreached).items()}
    safetensors.numpy.save_file(wrapped, tmp_path / "w.safetensors")
    arguments = _arguments(volume, tmp_path / "run")
    done = _run("import_weights", f"--weights={tmp_path}/w.safetensors", *arguments)
    assert done.returncode == 0, done.stderr
    trained = load_trained(tmp_path / "run", None)
    assert trained.step == 0
    jax.tree.map(np.testing.assert_array_equal, trained.variables, variables)
    done = _run("predict", f"--volume={volume}", f"--checkpoint={tmp_path}/run", "--slices=1")
    assert done.returncode == 0, done.stderr
    done = _run("train", *arguments)
    assert done.returncode == 0, done.stderr
    assert load_trained(tmp_path / "run", "latest").step == 1
    again = _run("import_weights", f"--weights={tmp_path}/w.safetensors", *arguments)
    assert again.returncode == 2 and "holds a run already" in again.stderr


def test_a_classifiers_encoder_with_three_colours(network):
    config, _, state = network
    rng = np.random.default_rng(0)
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    encoder["conv1.weight"] = rng.normal(size=(64, 3, 7, 7)).astype(np.float32)
    encoder |= {"fc.weight": np.zeros((1000, 512)), "layer4.0.bn1.bias": np.zeros(512)}
    other = initial_variables(registry.create_model(config), seed=4, channels=1)
    found = torch_import.encoder_to_flax(config, encoder, other)
    back = torch_import.to_torch(config, found["params"])
    expected = encoder["conv1.weight"].sum(1, keepdims=True)
    np.testing.assert_allclose(back["encoder.conv1.weight"], expected, rtol=1e-5)
    np.testing.assert_array_equal(
        back["encoder.layer2.0.conv1.weight"], state["encoder.layer2.0.conv1.weight"]
    )
    decoder = found["params"]["decoder"]
    jax.tree.map(np.testing.assert_array_equal, decoder, other["params"]["decoder"])


def test_swin_classifier_into_senformer():
    options = {"backbone": "nano", "features": 16, "heads": 2, "branch_depth": 1}
    config = registry.model_config("senformer", **options)
    first, second = (
        initial_variables(registry.create_model(config), seed=seed, channels=1) for seed in (0, 1)
    )
    state = torch_import.to_torch(config, first["params"])
    swin = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    swin = {k: v for k, v in swin.items() if not k.startswith("norm")}
    swin |= {"head.weight": np.zeros((10, 4)), "norm.weight": np.zeros(4)}
    swin["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((49, 49), np.int64)
    found = torch_import.encoder_to_flax(config, swin, second)["params"]
    name = "layers_2_blocks_0"
    jax.tree.map(
        np.testing.assert_array_equal, found["backbone"][name], first["params"]["backbone"][name]
    )
    jax.tree.map(np.testing.assert_array_equal, found["neck"], second["params"]["neck"])


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.npz", "no such file"),
        ("w.h5", "weights are read from .safetensors, .npz"),
        ("broken.safetensors", "cannot be read as safetensors"),
        ("broken.npz", "cannot be read as .npz"),
        ("other.npz", "missing: decoder.*unknown: foreign.weight"),
    ],
)
def test_weights_that_cannot_be_used(volume, tmp_path, name, message):
    import re

    path = tmp_path / name
    if name == "other.npz":
        np.savez(path, **{"foreign.weight": np.zeros(3)})
    elif name != "missing.npz":
        path.write_bytes(b"nothing of the kind")
    done = _run("import_weights", f"--weights={path}", *_arguments(volume, tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


def test_files_of_torch(tmp_path, network):
    torch = pytest.importorskip("torch", reason="torch is optional")
    from vemseg_jax.models.torch_files import read_state

    config, variables, state = network
    tensors = {f"module.{k}": torch.from_numpy(np.array(v)) for k, v in state.items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "w.pt")
    found = torch_import.to_flax(config, read_state(tmp_path / "w.pt"))
    jax.tree.map(np.testing.assert_array_equal, found, variables)
