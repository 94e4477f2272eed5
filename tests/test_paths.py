"""Whatever a user writes as a path, from any folder."""

import os
from pathlib import Path

import pytest

from vemseg_jax.data.formats.stores import location
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path, same_place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`A/my volume.zarr`, `link` to it and `links/A` to A; the current folder is B."""
    tmp_path = tmp_path.resolve()
    for name in ("A/my volume.zarr", "B/C", "links", "home/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link.zarr").symlink_to("A/my volume.zarr")
    (tmp_path / "links" / "A").symlink_to(tmp_path / "A")
    monkeypatch.chdir(tmp_path / "B")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v.zarr", "B/v.zarr"),
        ("./C//v.zarr/", "B/C/v.zarr"),
        (".", "B"),
        ("..", ""),
        ("../A/my volume.zarr", "A/my volume.zarr"),
        ("C/../../A/./my volume.zarr", "A/my volume.zarr"),
        ("../absent/../A", "A"),
        # A link keeps its name, unless ".." leads out of what it points at.
        ("../link.zarr", "link.zarr"),
        ("../links/A/x", "links/A/x"),
        ("../links/A/../B", "B"),
        ("~", "home"),
        ("~/data/v.zarr", "home/data/v.zarr"),
        ("~/../A", "A"),
        ("~nobody-of-that-name/x", "B/~nobody-of-that-name/x"),
        ("C/~", "B/C/~"),
        ("100%20.zarr", "B/100%20.zarr"),
        ("a b?c#d.zarr", "B/a b?c#d.zarr"),
        (Path("../A"), "A"),
        ("file://ROOT/A/my%20volume.zarr", "A/my volume.zarr"),
        ("file://localhostROOT/A/my volume.zarr", "A/my volume.zarr"),
        ("FILE:ROOT/B/../A", "A"),
        ("file://ROOT/B/..%2FA/50%25.zarr", "A/50%.zarr"),
    ],
)
def test_the_path_that_is_meant(folder, text, expected):
    given = text.replace("ROOT", str(folder)) if isinstance(text, str) else text
    found = local_path(given)
    assert found == folder / expected and found.is_absolute() and ".." not in found.parts
    assert local_path(found) == found
    assert location(given) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--output is empty"),
        ("  ", "--output is empty"),
        ("gs://bucket/v.zarr", "--output=gs://bucket/v.zarr: an address"),
        ("https://host/v.zarr", "an address"),
        ("file://server/v.zarr", "'server' stands where"),
        ("file://~/v.zarr", "file:///FOLDER/NAME"),
        ("file://", "'nothing' stands where"),
        (r"C:\data\my volume.zarr", "under WSL2 it is /mnt/c/data/my volume.zarr"),
        ("D:/v.zarr", "/mnt/d/v.zarr"),
        (r"\\server\share\v.zarr", "mount the share"),
    ],
)
def test_what_is_no_path_here(folder, text, message):
    with pytest.raises(InputError) as error:
        local_path(text, flag="--output")
    assert message in str(error.value) and str(error.value).count("\n") == 0


def test_a_file_that_looks_like_one_of_windows(folder):
    Path(r"C:\odd").touch()
    assert local_path(r"C:\odd") == folder / "B" / r"C:\odd"


def test_entries_of_a_table_start_at_its_folder(folder):
    assert local_path("../x.tif", base=Path("C")) == folder / "B" / "x.tif"
    assert local_path("~/x.tif", base=Path("C")) == folder / "home" / "x.tif"


def test_addresses_stay(folder):
    assert location("s3://bucket/a/v.zarr/") == "s3://bucket/a/v.zarr"
    assert location("precomputed://https://host/a") == "https://host/a"
    assert location(f"zarr://file://{folder}/A") == folder / "A"


def test_the_same_place(folder):
    assert same_place("../link.zarr", "../links/A/my volume.zarr")
    assert not same_place("../A", "../B")
    assert os.path.samefile(local_path("../link.zarr"), "../A/my volume.zarr")
