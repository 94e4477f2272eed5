"""A full disk, a lock, a codec, a permission and a damaged file are five things."""

import errno
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

from vemseg_jax.data.failures import is_damage, os_code, reason
from vemseg_jax.data.volume import create_array, write_plane
from vemseg_jax.errors import InputError

EXPECTED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota",
    errno.EAGAIN: "in use by another program",
    errno.EACCES: "no permission to read it",
    errno.EIO: "the disk or network share failed",
    errno.ESTALE: "the connection to the disk or network share was lost",
    errno.EMFILE: "too many files are open",
    errno.ENOMEM: "not enough memory",
    errno.ENOENT: "the file is not there",
    errno.EFBIG: "would be larger than",
    errno.EROFS: "read-only",
}


@pytest.mark.parametrize("code", EXPECTED)
@pytest.mark.parametrize("form", ["python", "tensorstore", "older", "hdf5", "words"])
def test_every_cause_has_its_own_text_in_every_spelling(code, form):
    words = os.strerror(code)
    error: Exception = {
        "python": OSError(code, words),
        "tensorstore": ValueError(f"UNKNOWN: Failed writing: x [os_error_code='{code}']"),
        "older": ValueError(f"UNKNOWN: Failed to write [OS error {code}: {words}]"),
        "hdf5": OSError(f"Can't open file (errno = {code}, error message = '{words}')"),
        "words": RuntimeError(f"worker said: {words}"),
    }[form]
    assert os_code(error) == code
    assert EXPECTED[code] in reason(error)
    assert not is_damage(error)


def test_the_exception_behind_an_exception_counts():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("write failed") from error
    except ValueError as error:
        assert "the disk is full" in reason(error, writing=True)


def test_what_is_left_is_damage_when_reading_and_a_failed_write_when_writing():
    error = ValueError("DATA_LOSS: Digest mismatch")
    assert reason(error).startswith("truncated or damaged, cannot be decoded (ValueError: DATA")
    assert reason(error).endswith("copy or export it again")
    assert reason(error, again="convert the volume again").endswith("convert the volume again")
    assert reason(error, damaged="slice 3 is damaged") == "slice 3 is damaged"
    assert "could not be written" in reason(error, writing=True)
    assert is_damage(error)
    # A position before the start of a file: a damaged tag, not a fault of the system.
    assert is_damage(OSError(errno.EINVAL, "Invalid argument"))


def test_permission_names_what_was_to_be_done():
    error = PermissionError(errno.EACCES, "Permission denied")
    assert "no permission to write it" in reason(error, writing=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package"), "imagecodecs"),
        (ModuleNotFoundError("No module named 'hdf5plugin'", name="hdf5plugin"), "hdf5plugin"),
        (ImportError("could not import name 'jpegxl_decode' from 'imagecodecs'"), "imagecodecs"),
    ],
)
def test_a_missing_codec_names_its_package(error, expected):
    text = reason(error)
    assert f"pip install {expected}" in text and "damaged" not in text


def test_an_unknown_codec_is_not_damage():
    text = reason(ValueError('Error parsing "codecs": "foo" is not registered'))
    assert "compression is not known" in text


def test_no_memory():
    assert "not enough memory" in reason(MemoryError())


def test_a_real_write_beyond_the_limit_says_so(tmp_path):
    code = (
        "import resource, signal, numpy as np, sys\n"
        "from pathlib import Path\n"
        "from vemseg_jax.data.volume import create_array, write_plane\n"
        "a = create_array(Path(sys.argv[1]), shape=(1, 512, 512), dtype=np.uint8, fill_value=0)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "write_plane(a, 0, np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True
    )
    assert "a/: slice 0: the file would be larger than" in done.stderr


def test_too_many_open_files_are_not_called_damage(tmp_path):
    from vemseg_jax.data.slices import read_plane

    array = create_array(tmp_path / "a", shape=(1, 64, 64), dtype=np.dtype("u1"), fill_value=0)
    write_plane(array, 0, np.ones((64, 64), np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
        with pytest.raises(OSError, match="Too many"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(InputError, match=re.escape("slice 0: too many files are open")):
            read_plane(array, 0)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
