"""Tests, and the binaries that they start, share compiled programs, in a folder of this run."""

import os
import signal

import jax
import pytest

# Before jax meets a device: the package guards its sums. And while this process bears its own name:
# the commands take its signals where it is named as one of them, as some tests name it.
import vemseg_jax.cli  # noqa: F401

# A shell starts what runs in its background with interrupts ignored, and that is inherited: without
# this, binaries that tests interrupt would never end there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("compilation_cache"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    del os.environ["JAX_COMPILATION_CACHE_DIR"]


@pytest.fixture(autouse=True)
def signals_stay():
    """A test that leaves a handler behind would change what the next ones see."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
