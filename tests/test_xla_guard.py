"""Sums of matrix products, which XLA gets wrong on a CPU where nobody stops it."""

import os
import subprocess
import sys
import warnings

import pytest

from vemseg_jax import xla_guard

GUARD = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np

{first}
jax.config.update("jax_platforms", "cpu")
rng = np.random.default_rng(0)
rows = rng.integers(-8, 9, (40_000, 3)).astype(np.float32)
matrix = rng.integers(-8, 9, (3, 3)).astype(np.float32)
square = rng.integers(-8, 9, (5, 60, 60)).astype(np.float32)
cases = {{
    "small matrix first": (
        lambda a, b: jnp.einsum("ij,nj->in", a, b).sum(0),
        (matrix, rows),
        (rows @ matrix.T).sum(1),
    ),
    "equal entries": (
        lambda x: jnp.sum((x @ jnp.full_like(x, 2)) * x, -1),
        (square,),
        2 * square.sum(-1) ** 2,
    ),
}}
for name, (function, arguments, right) in cases.items():
    if not np.array_equal(jax.jit(function)(*arguments), right):
        print(name)
"""


def _wrong(first=""):
    """Names of the sums that come out wrong in a process that runs the line `first`."""
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    clean["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", PROGRAM.format(first=first)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_sums_are_right_with_the_package():
    # jax was imported before: XLA reads its flags when it meets the first device.
    assert _wrong("import vemseg_jax") == []


def test_the_guard_is_still_needed():
    if not xla_guard._concerned():
        pytest.skip("the installed jaxlib is not one that the guard is for")
    wrong = _wrong()
    if not wrong:
        pytest.skip("the installed jaxlib sums right by itself: let the guard end before it")
    assert set(wrong) <= {"small matrix first", "equal entries"}


@pytest.fixture
def flags_after(monkeypatch):
    """`XLA_FLAGS` after the guard in a process that has met no device."""
    monkeypatch.setattr(xla_guard, "_in_use", lambda: False)

    def run(flags, version="0.10.2"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setattr(xla_guard.importlib.metadata, "version", lambda name: version)
        xla_guard.avoid_wrong_sums()
        return os.environ["XLA_FLAGS"]

    return run


def test_other_flags_stay(flags_after):
    assert flags_after("") == GUARD
    assert flags_after("--xla_dump_to=/tmp/x ") == f"--xla_dump_to=/tmp/x {GUARD}"


@pytest.mark.parametrize("value", ["", "-reduce", "eltwise,-individual_dot"])
def test_fusions_that_the_user_chose_stay(flags_after, value):
    flags = f"--xla_cpu_experimental_ynn_fusion_type={value} --xla_dump_to=x"
    assert flags_after(flags) == flags


@pytest.mark.parametrize(
    "version, known, guarded",
    [
        ("0.10.1", True, False),
        ("0.10.2", False, True),
        ("0.10.2.dev20260601", False, True),
        ("0.11.2", False, True),
        ("0.12.0.1", False, True),
        # Newer than what was tried: an unknown flag would end the process at its first device.
        ("0.12.1", True, True),
        ("0.12.1", False, False),
        ("unknown", True, False),
    ],
)
def test_versions(flags_after, monkeypatch, version, known, guarded):
    monkeypatch.setattr(xla_guard, "_knows_flag", lambda: known)
    assert flags_after("", version) == (GUARD if guarded else "")


def test_the_flag_is_found_in_the_library(monkeypatch):
    if not xla_guard._concerned():
        pytest.skip("the installed jaxlib is older than the flag")
    assert xla_guard._knows_flag()
    monkeypatch.setattr(xla_guard, "FLAG", "--xla_cpu_no_such_flag")
    assert not xla_guard._knows_flag()


def test_a_file_of_flags_is_the_users(flags_after, tmp_path):
    file = tmp_path / "flags"
    file.write_text(GUARD)
    assert flags_after(str(file)) == str(file)
    file.write_text("--xla_dump_to=x")
    with pytest.warns(RuntimeWarning, match=f"XLA_FLAGS names a file, {file}; add {GUARD} to it"):
        flags_after(str(file))


def test_too_late_is_said(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(xla_guard, "_concerned", lambda: True)
    monkeypatch.setattr(xla_guard, "_in_use", lambda: True)
    with pytest.warns(RuntimeWarning, match="import vemseg_jax before jax meets a device"):
        xla_guard.avoid_wrong_sums()
    assert "XLA_FLAGS" not in os.environ


def test_nothing_is_said_of_a_device_that_is_not_a_cpu(monkeypatch):
    import jax

    jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xla_guard.avoid_wrong_sums()


def test_these_tests_run_with_it():
    import jax

    import vemseg_jax  # noqa: F401

    if xla_guard._concerned() and jax.default_backend() == "cpu":
        assert "xla_cpu_experimental_ynn_fusion_type" in os.environ["XLA_FLAGS"]
