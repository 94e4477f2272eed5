"""The experiments of the package, by name from Python and as a table."""

import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vemseg_jax import configs
from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.errors import InputError
from vemseg_jax.models.torch_import import variable_shapes

ROOT = Path(__file__).parents[1]
# The others take too long to trace; `tests/models` counts the networks that they name.
SLOW = ("ceecnet_v1", "ceecnet_v2", "fractal_resnet", "senformer")


def test_by_name_and_by_path(tmp_path):
    assert configs.names() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    config = configs.get("ssl_unetplusplus_cutmix")
    assert isinstance(config, ExperimentConfig) and config.cps.method == "cps_cutmix"
    config.data.volume = "changed.zarr"
    again = configs.get(ROOT / "configs" / "ssl_unetplusplus_cutmix.py")
    assert again.data.volume != "changed.zarr" and again.model == config.model
    with pytest.raises(InputError, match=r"experiment 'unett'.*of this package: .*unet"):
        configs.get("unett")
    (tmp_path / "c.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(InputError, match=r"c.py: get_config\(\) returns dict"):
        configs.get(tmp_path / "c.py")


def test_the_experiments_are_modules_too():
    import vemseg_jax.configs.unet as module

    assert isinstance(module.get_config(), ExperimentConfig)
    assert configs.get("unet") == module.get_config()


@pytest.mark.parametrize("line", configs.summaries(), ids=lambda line: line.name)
def test_the_table_says_what_the_experiment_is(line):
    config = configs.get(line.name)
    assert line.parameters.startswith("2 x ") == is_pair(config)
    assert ("semi-supervised" in line.network) == is_pair(config)
    assert ("CutMix" in line.network) == (config.cps.method == "cps_cutmix")
    assert line.meant_for in ("CPU", "GPU")
    if line.name in SLOW:
        counts = (ROOT / "tests" / "models" / "test_models.py").read_text()
        assert line.parameters.replace(",", "_") in counts
        return
    leaves = jax.tree.leaves(variable_shapes(config.model)["params"])
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert line.parameters.removeprefix("2 x ") == f"{count:,}"


def test_the_page_about_networks_has_the_same_numbers():
    page = ROOT / "docs" / "how-to" / "choose-a-network.md"
    text = page.read_text(encoding="utf-8")
    for line in configs.summaries():
        if not line.name.endswith("_small"):
            assert line.parameters in text, line


def test_a_docstring_without_its_lines_is_refused(tmp_path, monkeypatch):
    (tmp_path / "small_unet.py").write_text('"""Mine.\n\nnetwork: U-Net\nmeant for: CPU\n"""\n')
    monkeypatch.setattr(configs, "config_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"small_unet.py: the docstring has no line 'parameters'"):
        configs.table()


def test_train_lists_them_without_any_other_flag(tmp_path):
    command = [sys.executable, "-m", "vemseg_jax.cli.train", "--list_configs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["config", "network", "parameters", "meant", "for"]
    assert [line.split()[0] for line in lines] == configs.names()
    assert "small_unet" in lines[6] and "269,009  CPU" in lines[6]
