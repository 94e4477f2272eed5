"""The commands of the tutorials run as they stand on the page, on less data and for fewer steps."""

import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from tests.cli.commands import loaded
from tests.docs_pages import DOCS, ROOT, shell_commands

# ml_collections loads configuration files that way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

HELA = ROOT.parent / "shared" / "data" / "hela_sbfsem"
TINY = (
    "--config.model.base_channels=4 --config.model.levels=1 --config.data.crop_size=32"
    " --config.train.batch_size=2 --config.train.steps=2 --config.train.eval_every=1"
)
# What is added to a command: the last value of a flag counts.
PHANTOM_CUTS = {
    # Coarse voxels: small slices that still show nuclei and nucleoli.
    "vemseg-phantom": "--shape=10,208,256 --voxel_size=200,40,40",
    "vemseg-convert": "--voxel_size=200,40,40 --unlabelled_slices=none",
    "vemseg-check": "--crop_size=32",
    "vemseg-train": TINY,
}
HELA_CUTS = {
    "vemseg-train": TINY,
    "vemseg-predict": "--slices=0:3,180:183",
    "vemseg-measure": "--z_range=0:3",
}
# It serves until it is stopped; `tests/view` have it.
NOT_RUN = ("vemseg-view",)


def run(words, cuts):
    """One command in this process."""
    name, *arguments = words
    with loaded(name) as module:
        from vemseg_jax.cli.config_files import with_config_files

        argv = with_config_files([name, *arguments, *shlex.split(cuts.get(name, ""))])
        # Where ml_collections looks for fields; this process is no command of its own.
        sys.argv = [__file__, *argv[1:]]
        rest = flags.FLAGS(argv)
        if name not in NOT_RUN:
            assert module.main(*rest[1:]) in (None, 0), words


def run_page(page, cuts):
    """All commands of a page; their names."""
    commands = shell_commands((DOCS / "tutorials" / page).read_text(encoding="utf-8"), "sh")
    commands = [words for words in commands if words[0] != "pip"]
    for words in commands:
        run(words, cuts)
    return [words[0] for words in commands]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    return tmp_path


def files_exist(*names):
    for name in names:
        assert Path(name).exists(), name


def test_phantom(folder):
    names = run_page("phantom.md", PHANTOM_CUTS)
    assert names == [
        *("vemseg-phantom", "vemseg-convert", "vemseg-check", "vemseg-train"),
        *("vemseg-predict", "vemseg-evaluate", "vemseg-measure", "vemseg-view"),
    ]
    files_exist("check.png", "evaluation/dice_per_slice.png", "measurement/nuclei.csv")


def test_hela(folder):
    if not (HELA / "em.tif").exists():
        pytest.skip(f"the HeLa data is not there: {HELA}")
    Path("hela").symlink_to(HELA)
    names = run_page("hela.md", HELA_CUTS)
    assert names == [
        *("vemseg-convert", "vemseg-check", "vemseg-train", "vemseg-predict"),
        *("vemseg-evaluate", "vemseg-measure", "vemseg-view"),
    ]
    files_exist("evaluation/dice_per_slice.png", "measurement/rendering.png")
