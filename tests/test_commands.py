"""What is printed to be typed works when it is pasted."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from tests.cli.commands import loaded
from vemseg_jax import commands
from vemseg_jax.next_steps import next_steps, suited_config


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A virtual environment in the current folder whose programs are not on the PATH."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("vemseg-train", "vemseg-quickstart", "python"):
        (programs / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/vemseg-quickstart"])
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    return programs


def test_programs_are_named_so_that_a_shell_finds_them(installed, tmp_path, monkeypatch):
    assert commands.program("vemseg-train") == ".venv/bin/vemseg-train"
    monkeypatch.setenv("PATH", str(installed))
    assert commands.program("vemseg-train") == "vemseg-train"
    # One of another installation comes first on the PATH.
    other = tmp_path / "other"
    other.mkdir()
    (other / "vemseg-train").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{other}:{installed}")
    assert commands.program("vemseg-train") == ".venv/bin/vemseg-train"
    monkeypatch.setattr(sys, "argv", [str(installed / "vemseg-quickstart")])
    monkeypatch.chdir(other)
    monkeypatch.setenv("PATH", "/nowhere")
    assert commands.program("vemseg-train") == str(installed / "vemseg-train")
    # No program of that name anywhere: as a module.
    python = str(installed / "python")
    assert commands.program("vemseg-view") == f"{python} -m vemseg_jax.cli.view"


def test_quoting_and_line_breaks(installed):
    path = Path("my stuff/v.zarr").absolute()
    text = commands.command(
        "vemseg-train",
        path,
        "--config.data.structures=('nuclei','nucleoli')",
        "--note=it's $5",
        *(f"--config.field_{n}=some value" for n in range(6)),
    )
    assert max(map(len, text.splitlines())) <= commands.WIDTH - 2 and "\\\n" in text
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:4] == [
        ".venv/bin/vemseg-train",
        "my stuff/v.zarr",
        "--config.data.structures=('nuclei','nucleoli')",
        "--note=it's $5",
    ]
    assert commands.shown("/elsewhere/v.zarr") == "/elsewhere/v.zarr"


def test_an_extra_is_installed_by_its_packages(installed):
    words = shlex.split(commands.install("view"))
    assert words[:4] == [".venv/bin/python", "-m", "pip", "install"]
    assert [word.partition(">")[0] for word in words[4:]] == ["neuroglancer"]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("config", ["small_unet", "unet"])
def test_the_next_steps_are_commands_with_flags_that_exist(tmp_path, monkeypatch, config):
    output = tmp_path / "quick start"
    (output / "training").mkdir(parents=True)
    log = [{"step": 20, "crops_per_second": 16.0}, {"step": 20, "val_loss": 1.0}]
    (output / "training" / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    monkeypatch.chdir(tmp_path)
    text = next_steps(
        output,
        labels=["nuclei_pred", "nucleoli_pred"],
        structures=("nuclei", "nucleoli"),
        voxel_size=(40, 16, 16),
        config=config,
        has_viewer=True,
        crop_size=128,
    )
    lines = [line for line in text.replace("\\\n", " ").splitlines() if "vemseg" in line]
    names = []
    for line in lines:
        if not line.startswith("  "):
            continue
        words = shlex.split(line)
        at = next(n for n, word in enumerate(words) if "vemseg" in os.path.basename(word))
        name = os.path.basename(words[at]).replace("vemseg_jax.cli.", "vemseg-")
        names.append(name)
        with loaded(name):
            from vemseg_jax.cli.config_files import with_config_files

            argv = with_config_files([name, *words[at + 1 :]])
            monkeypatch.setattr(sys, "argv", argv)
            flags.FLAGS(argv)
            if name == "vemseg-train":
                found = flags.FLAGS["config"].value
                assert found.data.structures == ("nuclei", "nucleoli")
                assert found.model.num_classes == 2
    verbs = [name.removeprefix("vemseg-") for name in names]
    assert verbs == [
        *("view", "measure"),
        *("convert", "check", "train", "predict", "measure", "view"),
    ]
    assert max(map(len, text.splitlines())) <= commands.WIDTH
    assert ("38 minutes here" in text) == (config == "small_unet")
    assert suited_config() in ("small_unet", "unet")


def test_the_viewer_is_installed_first_where_it_is_missing(tmp_path):
    text = next_steps(
        tmp_path,
        labels=[],
        structures=("nuclei",),
        voxel_size=(1, 1, 1),
        config="unet",
        has_viewer=False,
        crop_size=128,
    )
    assert text.index("pip install") < text.index("view ")
