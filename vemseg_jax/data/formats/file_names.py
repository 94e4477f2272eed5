"""File names as people type them against file names as they are on disk.

"Präparat" has two spellings in Unicode, the same on the screen: macOS takes umlauts apart (NFD),
keyboards, Windows and Linux write them as one letter (NFC).
"""

import unicodedata
from pathlib import Path

from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path


def nfc(name: str) -> str:
    """The composed spelling: names that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def find_path(path: Path) -> Path:
    """`path`, or what is on disk under another Unicode spelling of it.

    Parts that are not there under any spelling stay as they are, so that messages show them.

    Raises:
      InputError: two entries of a folder look like the name that was given, and none is it.
    """
    if path.exists():
        return path
    found = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    for index, part in enumerate(parts):
        if (found / part).exists():
            found = found / part
            continue
        try:
            same = sorted(e.name for e in found.iterdir() if nfc(e.name) == nfc(part))
        except OSError:  # a file, whose inner path follows, or a folder that cannot be listed
            same = []
        if len(same) > 1:
            raise InputError(
                f"{found / part}: {len(same)} entries of the folder look like this name and differ"
                " in how umlauts or accents are spelt; rename them"
            )
        if not same:
            return found.joinpath(*parts[index:])
        found = found / same[0]
    return found


def find_file(folder: Path, name: str, *, table: Path) -> Path:
    """A file that `table` lists: relative to `folder` or absolute, `/` or `\\` between parts.

    Raises:
      InputError: it is not there.
    """
    spellings = dict.fromkeys((name, name.replace("\\", "/")))
    for spelling in spellings:
        found = find_path(local_path(spelling, base=folder))
        if found.exists():
            return found
    same = _other_case(folder / list(spellings)[-1])
    hint = f"{same} differs in upper and lower case" if same else "paths are relative to the CSV"
    raise InputError(f"{table}: lists {name!r}, but there is no {folder / name}; {hint}")


def _other_case(path: Path) -> str | None:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return None
    wanted = nfc(path.name).casefold()
    return next((name for name in names if nfc(name).casefold() == wanted), None)
