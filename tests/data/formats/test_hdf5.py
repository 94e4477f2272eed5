"""HDF5 files that are in use, and datasets of which parts are missing."""

import errno
import subprocess
import sys

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from vemseg_jax.data.formats.hdf5 import failures as hdf5_failures
from vemseg_jax.data.formats.holes import settle_holes
from vemseg_jax.data.formats.open import open_source
from vemseg_jax.errors import InputError

SHAPE = (6, 40, 48)
# No voxel is 0.
TISSUE = np.random.default_rng(0).integers(1, 256, SHAPE, np.uint8)


def _read(path, *, label=False, missing_chunks="refuse"):
    source = open_source(path, axes="zyx", label=label)
    source = settle_holes(source, missing_chunks=missing_chunks, label=label)
    return np.stack([source.read(z) for z in range(source.shape[0])])


def _write(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=TISSUE, **options)
    return path


@pytest.fixture
def hold(request):
    """Opens a file for writing in another process, until the test ends."""

    def start(path, **options):
        code = (
            "import h5py, sys\n"
            "f = h5py.File(sys.argv[1], 'r+', libver=sys.argv[2])\n"
            "if sys.argv[3] == 'swmr': f.swmr_mode = True\n"
            "print(1, flush=True)\n"
            "input()\n"
        )
        command = [sys.executable, "-c", code, str(path), options["libver"], options["mode"]]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request.addfinalizer(process.communicate)
        assert process.stdout.readline() == b"1\n"
        return process

    return start


@pytest.mark.parametrize(
    ("libver", "mode"), [("earliest", "locked"), ("latest", "locked"), ("latest", "swmr")]
)
def test_a_file_in_use_is_not_called_damaged(tmp_path, hold, libver, mode):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file["raw"] = TISSUE
    process = hold(tmp_path / "a.h5", libver=libver, mode=mode)
    with pytest.raises(InputError, match=r"a\.h5: in use by another program") as caught:
        open_source(tmp_path / "a.h5", axes="zyx")
    assert "damaged" not in str(caught.value)
    process.kill()
    process.wait()
    if libver == "latest":
        # The mark of a writer that crashed stays.
        with pytest.raises(InputError, match=r"not closed by one that crashed.*h5clear -s"):
            open_source(tmp_path / "a.h5", axes="zyx")


def test_file_systems_without_locks(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.h5")
    real = h5py.File

    def without_locks(*arguments, **options):
        if options.get("locking") is False:
            return real(*arguments, **options)
        raise OSError(
            "Unable to synchronously open file (unable to lock file, errno = 37, error message ="
            " 'No locks available')"
        )

    monkeypatch.setattr(hdf5_failures.h5py, "File", without_locks)
    np.testing.assert_array_equal(_read(path), TISSUE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unable to lock file, errno = 11, error message = 'x'", "in use by another program"),
        ("unable to lock file, errno = 35, error message = 'x'", "in use by another program"),
        ("unable to lock file, errno = 5, error message = 'x'", "HDF5_USE_FILE_LOCKING=FALSE"),
        ("truncated file: eof = 90, sblock->base_addr = 0, stored_eof = 100", "90 of 100 bytes"),
        ("bad symbol table", "truncated or damaged"),
    ],
)
def test_why_a_file_cannot_be_opened(text, expected):
    assert expected in hdf5_failures.why(OSError(f"Unable to open file ({text})"))


def test_other_causes_keep_their_own_texts():
    assert "no permission" in hdf5_failures.why(PermissionError(errno.EACCES, "x"))


def test_chunks_that_were_never_written(tmp_path, capsys):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("raw", SHAPE, "u1", chunks=(2, 16, 16))
        raw[:, :32] = TISSUE[:, :32]
    with pytest.raises(InputError, match=r"9 of 27 chunks are missing, in slices 0-5 .*tissue"):
        _read(tmp_path / "a.h5")
    assert not _read(tmp_path / "a.h5", missing_chunks="fill")[:, 32:].any()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        raw = file.create_dataset("raw", SHAPE, "u1", chunks=(2, 16, 16))
        raw[:, :30] = TISSUE[:, :30]
    capsys.readouterr()
    assert not _read(tmp_path / "b.h5")[:, 30:].any()
    assert "warning" in capsys.readouterr().out
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("raw", SHAPE, "u1")
    with pytest.raises(InputError, match="no value was ever written"):
        _read(tmp_path / "c.h5")


def test_other_orders_of_axes_and_labels(tmp_path, capsys):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("raw", (1, 48, 40, 6), "u1", chunks=(1, 16, 20, 2))
        raw[..., :4] = TISSUE.T[None, ..., :4]
    source = open_source(tmp_path / "a.h5", axes="cxyz")
    with pytest.raises(InputError, match=r"6 of 18 chunks are missing, in slices 4-5 "):
        settle_holes(source, missing_chunks="refuse", label=False)
    source = open_source(tmp_path / "a.h5", axes="cxyz", label=True)
    settle_holes(source, missing_chunks="refuse", label=True)
    assert "empty background" in capsys.readouterr().out


def _virtual(folder, *, without=(), name="v.h5"):
    layout = h5py.VirtualLayout(SHAPE, "u1")
    for z in range(SHAPE[0]):
        with h5py.File(folder / f"s_{z}.h5", "w") as file:
            file["raw"] = TISSUE[z]
        if z not in without:
            layout[z] = h5py.VirtualSource(f"s_{z}.h5", "raw", SHAPE[1:])
    with h5py.File(folder / name, "w") as file:
        file.create_virtual_dataset("all", layout, fillvalue=0)
    return folder / name


def test_virtual_datasets(tmp_path, monkeypatch):
    path = _virtual(tmp_path)
    np.testing.assert_array_equal(_read(path), TISSUE)
    source = tmp_path / "s_3.h5"
    with h5py.File(source, "w") as file:
        file["other"] = TISSUE[3]
    with pytest.raises(InputError, match=r"s_3\.h5 has no dataset raw \(slice 3\)"):
        _read(path)
    with h5py.File(source, "w") as file:
        file["raw"] = TISSUE[3, :9]
    with pytest.raises(InputError, match=r"s_3\.h5/raw is smaller \(\(9, 48\)\)"):
        _read(path)
    with h5py.File(source, "w") as file:
        file.create_dataset("raw", SHAPE[1:], "u1", chunks=(16, 16))
    with pytest.raises(InputError, match=r"s_3\.h5/raw: 9 of its 9 chunks were never written"):
        _read(path)
    source.unlink()
    (tmp_path / "s_4.h5").unlink()
    for label in (False, True):
        with pytest.raises(
            InputError, match=r"s_3\.h5 is missing; s_4\.h5 is missing \(slices 3-4"
        ):
            _read(path, label=label)
    assert not _read(path, missing_chunks="fill")[3:5].any()
    path = _virtual(tmp_path, without=(1,), name="w.h5")
    with pytest.raises(InputError, match=r"16\.7 % of its voxels come from no file \(slice 1\)"):
        _read(path)
    _read(path, label=True)


def test_virtual_datasets_of_virtual_datasets(tmp_path):
    _virtual(tmp_path)
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource("v.h5", "all", SHAPE)
    with h5py.File(tmp_path / "top.h5", "w") as file:
        file.create_virtual_dataset("top", layout, fillvalue=0)
    np.testing.assert_array_equal(_read(tmp_path / "top.h5"), TISSUE)
    (tmp_path / "s_2.h5").unlink()
    with pytest.raises(InputError, match=r"v\.h5/all: is a virtual dataset: s_2\.h5 is missing"):
        _read(tmp_path / "top.h5")


def test_numbered_sources(tmp_path):
    for z in range(SHAPE[0]):
        with h5py.File(tmp_path / f"n_{z}.h5", "w") as file:
            file["raw"] = TISSUE[z]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        space = h5s.create_simple(SHAPE, (h5s.UNLIMITED, *SHAPE[1:]))
        space.select_hyperslab(
            (0, 0, 0), (h5s.UNLIMITED, 1, 1), stride=(1, 1, 1), block=(1, *SHAPE[1:])
        )
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_virtual(space, b"n_%b.h5", b"raw", h5s.create_simple(SHAPE[1:]))
        h5d.create(file.id, b"all", h5t.NATIVE_UINT8, space, properties)
    np.testing.assert_array_equal(_read(tmp_path / "v.h5"), TISSUE)
    (tmp_path / "n_2.h5").unlink()
    with pytest.raises(InputError, match=r"n_2\.h5 is missing .* after 2 slices"):
        _read(tmp_path / "v.h5")


def test_values_in_other_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("a.h5", "w") as file:
        raw = file.create_dataset("raw", SHAPE, "u1", external=[("a.raw", 0, h5py.h5f.UNLIMITED)])
        raw[:] = TISSUE
    np.testing.assert_array_equal(_read(tmp_path / "a.h5"), TISSUE)
    # HDF5 looks where the program was started.
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(_read(tmp_path / "a.h5"), TISSUE)
    raw = (tmp_path / "a.raw").read_bytes()
    (tmp_path / "a.raw").write_bytes(raw[:-1000])
    with pytest.raises(InputError, match=r"a\.raw has 10520 of 11520 bytes"):
        _read(tmp_path / "a.h5")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"a\.raw is missing"):
        _read(tmp_path / "a.h5")


def test_links_to_files_that_are_not_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/raw"] = h5py.ExternalLink("gone.h5", "/raw")
    with pytest.raises(InputError, match=r"a\.h5/group/raw: is a link to /raw in gone\.h5"):
        open_source(tmp_path / "a.h5" / "group" / "raw")
