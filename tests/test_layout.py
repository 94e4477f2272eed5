"""Which rooms of the package may import which, and how large a room may grow."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vemseg_jax"

# What the modules of a package may import of the others. Whatever lies at the top of `vemseg_jax`
# belongs to none of them.
PACKAGES = {
    "data": set(),
    "models": set(),
    "losses": set(),
    "eval": {"data"},
    "view": {"data"},
    "measure": {"data", "eval"},
    "infer": {"data", "models"},
    "train": {"data", "models", "losses", "eval", "infer"},
    "study": {"data", "models", "eval", "measure", "infer", "train"},
    "cli": {"data", "eval", "view", "measure", "infer", "train", "study"},
}
# The rooms of `vemseg_jax.data`.
ROOMS = {
    "store": set(),
    "formats": {"store"},
    "convert": {"store", "formats"},
    "preprocess": {"store"},
    "phantom": {"store"},
    "crops": {"store"},
    "check": {"store", "convert", "crops"},
}
# The rooms of `vemseg_jax.data.formats`; modules beside them but `open` import none of these.
FORMATS = {"tiff": set(), "chunked": set(), "hdf5": {"chunked"}, "mrc": {"chunked"}}

MOST_MODULES = 20
# One file a command, and one a network: these rooms may be larger.
LARGER = {"cli": 30, "models": 25, "train": 22, "infer": 22, "": 25}


def imports(file: Path) -> Iterator[str]:
    """Modules of this project that a module imports, wherever in the file, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports by the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "vemseg_jax")


def arrows(folder: Path, rooms: set[str]) -> dict[str, dict[str, str]]:
    """`{room: {imported room: a file that does so}}`, between rooms of one folder."""
    prefix = [*folder.relative_to(ROOT).parts]
    found: dict[str, dict[str, str]] = {room: {} for room in rooms}
    for room in rooms:
        for file in (folder / room).rglob("*.py"):
            for name in imports(file):
                parts = name.split(".")
                if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
                    other = parts[len(prefix)]
                    if other in rooms - {room}:
                        found[room][other] = str(file.relative_to(ROOT))
    return found


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [(PACKAGE, PACKAGES), (PACKAGE / "data", ROOMS), (PACKAGE / "data" / "formats", FORMATS)],
    ids=["packages", "rooms of data", "rooms of formats"],
)
def test_arrows_between_rooms_go_one_way(folder, allowed):
    rooms = {file.parent.name for file in folder.glob("*/__init__.py")}
    assert rooms == set(allowed)
    assert list(graphlib.TopologicalSorter(allowed).static_order())  # raises on a circle
    for room, others in arrows(folder, rooms).items():
        for other, file in others.items():
            assert other in allowed[room], f"{file}: {room} must not import {other}"


def test_what_all_formats_share_imports_none_of_them():
    for file in (PACKAGE / "data" / "formats").glob("*.py"):
        if file.stem == "open":
            continue
        rooms = {name.split(".")[3] for name in imports(file) if name.count(".") > 2}
        assert not rooms & set(FORMATS), file


def test_rooms_are_not_crowded():
    for init in PACKAGE.rglob("__init__.py"):
        room = init.parent.relative_to(PACKAGE).as_posix().strip(".")
        modules = [file for file in init.parent.glob("*.py") if file != init]
        assert len(modules) <= LARGER.get(room, MOST_MODULES), room


def test_rooms_of_data_are_free_of_imports():
    for init in (PACKAGE / "data").rglob("__init__.py"):
        assert not [*imports(init)] and ast.get_docstring(ast.parse(init.read_text())), init
