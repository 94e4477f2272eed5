"""What an installation holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed_and_the_experiments_with_them():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "vemseg_jax").rglob("__init__.py")
    }
    assert set(options["packages"]) == found | {"vemseg_jax.configs"}
    assert options["package-dir"] == {"vemseg_jax.configs": "configs"}
    assert (ROOT / "configs" / "small_unet.py").is_file()
