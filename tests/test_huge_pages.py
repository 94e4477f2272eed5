import os
import subprocess
import sys

import pytest

from vemseg_jax import huge_pages

PROGRAM = """
import os, sys
from vemseg_jax.huge_pages import restart_with_huge_pages
restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""


def _run(**environment):
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | environment
    command = [sys.executable, "-c", PROGRAM, "--flag=a b", "c"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_program_starts_again_once_with_its_arguments():
    setting = "glibc.malloc.hugetlb=1" if huge_pages._given_on_request() else "None"
    assert _run() == f"{setting} --flag=a b c"


def test_settings_of_the_user_stay():
    assert _run(GLIBC_TUNABLES="glibc.malloc.hugetlb=0").startswith("glibc.malloc.hugetlb=0 ")


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]"])
def test_no_restart_where_it_would_not_help(tmp_path, monkeypatch, setting):
    (tmp_path / "enabled").write_text(setting)
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "enabled")
    assert not huge_pages._given_on_request()
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "missing")
    assert not huge_pages._given_on_request()


def test_a_process_that_has_jax_goes_on(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setitem(sys.modules, "jax", object())
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    huge_pages.restart_with_huge_pages()
    assert "GLIBC_TUNABLES" not in os.environ
