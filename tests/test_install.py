"""What the extras for GPUs bring along, as the package registry would install it today."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import uv
from packaging.version import InvalidVersion, Version

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
UNREACHABLE = ("error sending request", "failed to fetch", "dns error", "timed out", "connect")


def resolve(extra: str, python: str, *constraints: str) -> dict[str, tuple[int, ...]]:
    """Versions of all packages that `.[extra]` installs on Linux; nothing is installed."""
    command = [uv.find_uv_bin(), "pip", "compile", "--no-header", "--no-annotate", "--quiet"]
    # The oldest Linux that the wheels of jax run on.
    where = [f"--python-version={python}", "--python-platform=x86_64-manylinux_2_28"]
    done = subprocess.run(
        [*command, *where, f"--extra={extra}", "--constraints=-", PROJECT],
        input="\n".join(constraints),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode and any(mark in done.stderr.lower() for mark in UNREACHABLE):
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^([\w-]+)==([\d.]+)", done.stdout, re.MULTILINE)
    return {name: tuple(map(int, version.split("."))) for name, version in found}


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_v100_gets_the_last_cudnn_with_volta(python):
    versions = resolve("cuda12-v100", python)
    # 9.11 and later begin at compute capability 7.5; jax itself refuses what is below 9.10.2.
    assert (9, 10, 2) <= versions["nvidia-cudnn-cu12"] < (9, 11)
    assert versions["jax-cuda12-plugin"] >= (0, 10)
    assert versions["jax-cuda12-plugin"] == versions["jax"]


def test_cuda12_keeps_the_newest_cudnn():
    assert resolve("cuda12", "3.12")["nvidia-cudnn-cu12"] >= (9, 11)


def test_cuda13_leaves_out_the_versions_that_compute_wrong_values():
    # Without the exclusion 0.11.1 is the newest of these.
    versions = resolve("cuda13", "3.12", "jax<0.11.2")
    assert versions["jax"][:2] == (0, 10)
    assert "nvidia-cudnn-cu13" in versions


def test_no_extra_is_named_like_a_version():
    # pip 24.1 to 25.3 compare such a name with all others as versions, and install nothing.
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in extras:
        with pytest.raises(InvalidVersion):
            Version(name)
