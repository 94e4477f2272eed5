"""A full disk, a lock, a codec, a permission and a damaged file are five things."""

import errno
import logging
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest

from vemseg_jax.data.store.failures import is_damage, machine_fault, os_code, reason
from vemseg_jax.data.store.volume import create_array, write_plane
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
        "from vemseg_jax.data.store.volume import create_array, write_plane\n"
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
    from vemseg_jax.data.store.slices import read_plane

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


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_json_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    from vemseg_jax.data.store import atomic

    monkeypatch.setattr(atomic.os, "fsync", _full)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write_json(tmp_path / "a.json", {"a": 1})
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_faults_of_the_machine_become_one_line_and_others_do_not():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/a.json")
    assert machine_fault(full).startswith("/data/a.json: the disk is full")
    error = ValueError("Error writing local file \"/data/c/0\": x [os_error_code='28']")
    assert machine_fault(error).startswith("/data/c/0: the disk is full")
    assert "not enough memory" in machine_fault(MemoryError("Unable to allocate 3 GiB"))
    assert machine_fault(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
    assert machine_fault(KeyError("x")) is None


def test_a_command_on_a_full_disk_ends_in_one_line(capsys, monkeypatch):
    from vemseg_jax.cli import app

    def main():
        raise OSError(errno.ENOSPC, "No space left on device", "/data/a.json")

    monkeypatch.setattr(app.app, "run", lambda guarded, flags_parser: guarded(["command"]))
    monkeypatch.setattr(app, "restart_with_huge_pages", lambda: None)
    with pytest.raises(SystemExit) as caught:
        app.run(main)
    assert caught.value.code == app.INPUT_ERROR_STATUS
    assert capsys.readouterr().err.startswith("error: /data/a.json: the disk is full")


def test_a_checkpoint_on_a_full_disk(tmp_path):
    from vemseg_jax import checkpoint

    class Manager:
        directory = tmp_path

        def all_steps(self):
            return []

        def save(self, step, args):
            raise ValueError("Error writing [os_error_code='28']")

        close = _full

    with (
        pytest.raises(InputError, match=r"a checkpoint could not be saved: the disk is full"),
        checkpoint.NoCheckpoints() as checkpoints,
    ):
        checkpoints._managers = {"latest": Manager(), "best": Manager()}
        checkpoint.Checkpoints.save(checkpoints, "latest", 1, variables={}, meta={})
    # What orbax logs of it is left out, its other errors are not.
    for error, kept in ((ValueError("[os_error_code='28']"), False), (KeyError("x"), True)):
        record = logging.LogRecord(
            "absl", logging.ERROR, "/x/orbax/a.py", 1, "failed", (), (type(error), error, None)
        )
        assert checkpoint._is_not_chatter(record) is kept


def test_a_network_share_that_fails_is_not_called_damaged_by_the_check(tmp_path, monkeypatch):
    from vemseg_jax.data.check import images as check_images

    array = create_array(tmp_path / "a", shape=(1, 64, 64), dtype=np.dtype("u1"), fill_value=0)

    def fails(*_):
        raise InputError(f"a/: slice 0: {reason(OSError(errno.EIO, os.strerror(errno.EIO)))}")

    monkeypatch.setattr(check_images, "read_slices", fails)
    damaged: list[int] = []
    with pytest.raises(InputError, match="network share failed"):
        check_images.read_plane(array, 0, damaged)
    assert damaged == []


def test_a_slice_of_a_tiff_that_vanished_or_may_not_be_read(tmp_path, monkeypatch):
    import tifffile

    from vemseg_jax.data.formats.open import open_source
    from vemseg_jax.data.formats.tiff import reader as tiff_reader

    for z in range(2):
        tifffile.imwrite(tmp_path / f"s_{z}.tif", np.zeros((9, 9), np.uint8))
    source = open_source(tmp_path)
    (tmp_path / "s_1.tif").unlink()
    with pytest.raises(InputError, match=r"s_1\.tif: the file is not there"):
        source.read(1)

    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tiff_reader.tifffile, "TiffFile", denied)
    with pytest.raises(InputError, match=r"s_0\.tif: no permission to read it"):
        open_source(tmp_path)


def test_writing_a_volume_to_a_full_disk_says_so(tmp_path, monkeypatch):
    from vemseg_jax.data.store import volume

    array = create_array(tmp_path / "a", shape=(1, 64, 64), dtype=np.dtype("u1"), fill_value=0)

    class Full:
        def __getitem__(self, _):
            return self

        write = _full
        spec = staticmethod(array.spec)

    with pytest.raises(InputError, match="slice 0: the disk is full"):
        write_plane(Full(), 0, np.ones((64, 64), np.uint8))
    monkeypatch.setattr(volume.ts, "open", _full)
    with pytest.raises(InputError, match="b: the disk is full"):
        create_array(tmp_path / "b", shape=(1, 64, 64), dtype=np.dtype("u1"), fill_value=0)
