"""Binaries that the tests start share compiled programs, in a folder of this run."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compilation_cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    yield
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
