"""`import vemseg_jax as vs`: what the README promises of it, as it is written there."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import vemseg_jax as vs
from tests.cli.commands import loaded
from tests.train.runs import small_config
from vemseg_jax.data.convert.stack import ConvertOptions
from vemseg_jax.errors import InputError
from vemseg_jax.infer.predictor import Method
from vemseg_jax.infer.segmenter import Segmenter
from vemseg_jax.measure.options import Options

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "flax", "matplotlib", "tensorstore", "numpy", "scipy", "optax", "orbax")


def section():
    """The lines of Python of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"## From Python\n.*?```python\n(.*?)```", text, re.DOTALL)[1]


def in_a_process(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_is_light_and_the_names_are_there():
    script = f"""
import sys
import vemseg_jax as vs
assert set(vs.__all__) <= set(dir(vs))
vs.configs.names(), vs.configs.table(), vs.train, vs.load, vs.measure, vs.models, vs.InputError
print(sorted(set({HEAVY}) & set(sys.modules)))
"""
    assert in_a_process(script) == "[]\n"


def test_every_name_is_what_it_says():
    from vemseg_jax import configs, models

    assert (vs.configs, vs.models, vs.InputError) == (configs, models, InputError)
    assert vs.Segmenter is Segmenter
    for name in vs.__all__:
        assert getattr(vs, name) is not None
    with pytest.raises(AttributeError, match="'vemseg_jax' has no attribute 'lod'"):
        vs.lod  # noqa: B018
    with pytest.raises(AttributeError, match=r"'vemseg_jax.models' has no attribute 'VNet'"):
        vs.models.VNet  # noqa: B018


@pytest.mark.parametrize("name", ["train", "measure"])
def test_packages_of_the_same_name_can_be_called(name):
    from vemseg_jax import api

    module = importlib.import_module(f"vemseg_jax.{name}")
    assert getattr(vs, name) is module and inspect.ismodule(module)
    # With their own parts, as before.
    assert importlib.import_module(f"vemseg_jax.{name}.{'loop' if name == 'train' else 'measure'}")
    assert inspect.signature(module) == inspect.signature(getattr(api, name))


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", ["vemseg-predict", "vemseg-convert", "vemseg-measure"])
def test_defaults_are_those_of_the_command(name):
    from absl import flags

    found = defaults(getattr(vs, name.removeprefix("vemseg-")))
    with loaded(name) as module:
        own = {f.name: f.default for f in flags.FLAGS.flags_by_module_dict()[module.__name__]}
    # Under another name in Python, or an empty list or text where Python has None.
    own |= {"unlabelled_values": own.get("unlabelled_value"), "z_range": own.get("z_range")}
    for argument, value in found.items():
        if argument == "slices":
            value = ",".join(map(str, value))
        said = own[argument]
        if isinstance(value, int) and isinstance(said, str):
            said = int(said)  # of a choice
        assert value == said or (not value and not said), (argument, value, said)


def test_defaults_are_those_of_the_library():
    options, method = ConvertOptions(), Method()
    for argument, value in defaults(vs.convert).items():
        assert value == getattr(options, argument) or (not value and not getattr(options, argument))
    assert set(defaults(vs.convert)) == set(inspect.signature(ConvertOptions).parameters)
    for function in (vs.predict, Segmenter.predict):
        found = defaults(function)
        names = ("method", "overlap", "blending", "flips")
        assert Method(*(found[name] for name in names)) == method
    wanted = Options(nuclei="nuclei_pred")
    for argument, value in defaults(vs.measure).items():
        if argument == "memory_gib":
            assert value * 2**30 == wanted.memory_bytes
        elif argument not in ("output", "overwrite"):
            assert value == getattr(wanted, argument)


def test_what_cannot_be_used_is_refused(tmp_path):
    for call in (
        lambda: vs.load(tmp_path / "nothing"),
        lambda: vs.predict(tmp_path / "v.zarr", tmp_path / "run", normalization="mine"),
        lambda: vs.open_volume(str(tmp_path / "v.zarr")),
        lambda: vs.convert(tmp_path / "tiffs", tmp_path / "v.zarr"),
        lambda: vs.convert(tmp_path, tmp_path / "v.zarr", unlabelled_slices={"": "all"}),
        lambda: vs.evaluate(tmp_path, level="coarse"),
        lambda: vs.measure(tmp_path, outside="keep"),
        lambda: vs.measure(tmp_path, connectivity=8),
        lambda: vs.configs.get("small_unnet"),
        lambda: vs.models.create("resunett"),
        lambda: vs.models.create("resunet", classes=2),
    ):
        with pytest.raises(vs.InputError):
            call()
    with pytest.raises(vs.InputError, match="--meshes=stl: must be one of ply, obj"):
        vs.measure(tmp_path, meshes="stl")


def test_one_version_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    where = project["tool"]["setuptools"]["dynamic"]["version"]
    assert where == {"attr": "vemseg_jax.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", vs.__version__)
    # setuptools reads it without importing the package, where it is a plain text.
    assert f'\n__version__ = "{vs.__version__}"\n' in (ROOT / "vemseg_jax/__init__.py").read_text()
    assert project["tool"]["setuptools"]["package-data"] == {"vemseg_jax": ["py.typed"]}
    assert (ROOT / "vemseg_jax" / "py.typed").is_file()


@pytest.fixture
def stack(tmp_path):
    """TIFF slices and their labels, where the README says that they are."""
    import tifffile

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :192]
    disk = np.hypot(y - 80, x - 90) < 48
    for folder in ("tiffs", "labels/nuclei"):
        (tmp_path / folder).mkdir(parents=True)
    for z in range(10):
        grey = 100 + 60 * disk + rng.normal(0, 15, disk.shape)
        tifffile.imwrite(tmp_path / f"tiffs/z{z:02}.tif", np.clip(grey, 0, 255).astype(np.uint8))
        tifffile.imwrite(tmp_path / f"labels/nuclei/l{z:02}.tif", disk.astype(np.uint8))
    return disk


def test_the_lines_of_the_readme_run_as_written(stack, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A network that two cores train in no time; the README names one for half an hour.
    tiny = small_config("unset", steps=6)
    monkeypatch.setattr(vs.configs, "get", {"small_unet": tiny}.__getitem__)
    names = {}
    exec(compile(section(), "README.md", "exec"), names)
    assert names["config"] is tiny
    for array, dtype in ((names["mask"], bool), (names["probability"], np.float32)):
        assert array.shape == (8, 160, 192) and array.dtype == dtype
    assert vs.open_volume("my.zarr").labelled_slices("nuclei_pred") == tuple(range(10))
    assert (tmp_path / "my-evaluation" / "summary.md").is_file()
    assert (tmp_path / "my-measurement" / "nuclei.csv").is_file()
    assert "nuclei" in capsys.readouterr().out
    assert names["network"].config.num_classes == 2
