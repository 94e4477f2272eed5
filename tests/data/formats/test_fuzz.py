"""Damaged files of every format: one line of error or a volume, never a traceback or a hang."""

import faulthandler
import json
import warnings

import numpy as np
import pytest

from tests.data.volumes import FORMATS
from vemseg_jax.data.convert.stack import ConvertOptions, convert
from vemseg_jax.data.store.volume import FULL, open_volume
from vemseg_jax.errors import InputError

CASES_PER_FORMAT = 17
LIMIT_SECONDS = 120
JSON_VALUES = (None, -1, 0, "x", [], {}, [1e300], 2**40, [0, 0, 0], "uint64", [[]], True)


def _files(path):
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _damage_json(rng, file):
    """Replaces or removes one value anywhere in it."""
    top = json.loads(file.read_text())
    value, spots = top, []
    stack = [top]
    while stack:
        value = stack.pop()
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        spots += [(value, key) for key, _ in pairs]
        stack += [inner for _, inner in pairs if isinstance(inner, dict | list)]
    if not spots:
        file.unlink()
        return
    holder, key = spots[rng.integers(len(spots))]
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = JSON_VALUES[rng.integers(len(JSON_VALUES))]
    file.write_text(json.dumps(top))


def _damage(rng, path):
    """Truncates, overwrites or removes something; headers more often than data."""
    files = _files(path)
    metadata = [f for f in files if f.suffix == ".json" or f.name in (".zarray", ".zattrs", "info")]
    kind = rng.integers(5)
    if metadata and kind < 3:
        _damage_json(rng, metadata[rng.integers(len(metadata))])
        return
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    if kind == 4 and path.is_dir():
        file.unlink()
    elif kind in (0, 3):
        data = data[: rng.integers(len(data))]
        file.write_bytes(data)
    else:
        # The first bytes are the header of most formats.
        end = len(data) if rng.random() < 0.3 else min(len(data), 600)
        for _ in range(rng.integers(1, 9)):
            data[rng.integers(end)] = rng.integers(256)
        file.write_bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_ends_in_one_line_or_a_volume(tmp_path, name):
    write, options = FORMATS[name]
    refused = 0
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    try:
        for case in range(CASES_PER_FORMAT):
            rng = np.random.default_rng([case, *name.encode()])
            folder = tmp_path / str(case)
            folder.mkdir()
            path = write(folder / "in")
            _damage(rng, path)
            output = folder / "v.zarr"
            try:
                with warnings.catch_warnings():
                    # Libraries warn of what they then read.
                    warnings.simplefilter("ignore")
                    convert(path, output, ConvertOptions(downsample=1, **options))
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
                assert not output.exists()
            else:
                assert open_volume(output).image(FULL).read().result().size > 0
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert refused > 0


def test_there_are_two_hundred_cases():
    assert CASES_PER_FORMAT * len(FORMATS) >= 200
