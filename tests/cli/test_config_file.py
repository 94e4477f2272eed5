"""Errors of a `--config` file name the file, the line, and the field."""

import sys
from pathlib import Path

import pytest

from vemseg_jax.cli.config_file import ConfigFileError, Parser
from vemseg_jax.config import ExperimentConfig

CONFIGS = Path(__file__).parents[2] / "configs"
TYPE_ERROR = """from vemseg_jax.config import DataConfig
def data():
    return DataConfig(volum="x")
def get_config():
    return data()
"""


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vemseg-train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef get_config(:\n  pass\n", "line 2: SyntaxError: invalid syntax"),
        ("\nimport notthere\n", "line 2: ModuleNotFoundError: No module named 'notthere'"),
        (TYPE_ERROR, "line 3: TypeError: DataConfig"),
        ("def get_config():\n  return {}['x']\n", "line 2: KeyError: 'x'"),
        ("def get_config():\n  open('/nowhere')\n", "line 2: FileNotFoundError"),
        ("def get_config():\n  raise ValueError\n", "line 2: ValueError"),
        ("def get_config():\n  pass\n", "get_config() returns NoneType; give a Python file"),
        ("def get_config():\n  return {}\n", "get_config() returns dict; give a Python file"),
        ("x = 1\n", "has no attribute 'get_config'"),
    ],
)
def test_what_goes_wrong_in_a_file(tmp_path, text, message):
    path = tmp_path / "my config.py"
    path.write_text(text)
    with pytest.raises(ConfigFileError) as error:
        Parser("config").parse(str(path))
    assert str(error.value).startswith(f"--config={path} could not be loaded: ")
    assert message in str(error.value)
    assert "config_config" not in str(error.value)


def test_files_that_are_not_there(tmp_path):
    for path, found in ((tmp_path / "none.py", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigFileError, match=f"could not be loaded: {found}; give a Python"):
            Parser("config").parse(str(path))


def test_a_file_with_an_argument(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        "from vemseg_jax.config import ExperimentConfig\n"
        "def get_config(model):\n  return ExperimentConfig(model=model)\n"
    )
    assert Parser("config").parse(f"{path}:abc").model == "abc"
    with pytest.raises(ConfigFileError, match="missing 1 required positional argument"):
        Parser("config").parse(str(path))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optimizer.lr=1", "Field lr not found; did you mean --config.optimizer.learning_rate?"),
        ("train.batchsize=1", "did you mean --config.train.batch_size?"),
        ("train.learning_rate=1", "did you mean --config.optimizer.learning_rate?"),
        (
            "modell.filters=1",
            "Field modell not found; did you mean --config.model?",
        ),
        ("model.filter=1", "--config.model has in_channels, num_classes, base_channels"),
        ("nodata.x=1", "--config has model, data, loss, cps, optimizer, train"),
    ],
)
def test_a_field_that_is_not_there(monkeypatch, argument, message):
    monkeypatch.setattr(sys, "argv", ["vemseg-train", f"--config.{argument}"])
    with pytest.raises(ConfigFileError) as error:
        Parser("config").parse(str(CONFIGS / "small_unet.py"))
    assert message in str(error.value)


def test_fields_that_are_there(monkeypatch):
    flags = ["--config.train.steps=3", "--noconfig.data.exact_offsets", "--config.model=x", "-x=1"]
    monkeypatch.setattr(sys, "argv", ["vemseg-train", *flags])
    config = Parser("config").parse(str(CONFIGS / "small_unet.py"))
    assert isinstance(config, ExperimentConfig)
