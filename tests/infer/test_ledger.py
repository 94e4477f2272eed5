"""Predictions that are interrupted, fail, are damaged or shared out."""

import dataclasses
import random
import subprocess
import time

import numpy as np
import pytest

from tests.infer import runs
from tests.infer.runs import NAME, SINGLE, final, partial
from tests.train.runs import write_volume
from vemseg_jax.data.store.atomic import put_in_place
from vemseg_jax.data.store.volume import open_volume
from vemseg_jax.errors import InputError
from vemseg_jax.infer import ledger, placing, work
from vemseg_jax.infer.engines import Engine
from vemseg_jax.infer.job import Job, PredictOptions
from vemseg_jax.infer.outputs import BlockWriter, OutputError
from vemseg_jax.infer.predict import Sharing, predict_volume
from vemseg_jax.infer.predictor import Method
from vemseg_jax.infer.verify import verify
from vemseg_jax.infer.work import Work


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return runs.train_small(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    return runs.expected_files(trained, tmp_path_factory.mktemp("expected"))


def _interrupt_after(monkeypatch, blocks):
    """The device fails once so many blocks were begun."""
    predict, count = Work.predict, [0]

    def failing(self, block, planes):
        if count[0] == blocks:
            raise KeyboardInterrupt
        count[0] += 1
        return predict(self, block, planes)

    monkeypatch.setattr(Work, "predict", failing)
    return count


def _interrupted(trained, folder, monkeypatch, blocks=5):
    path, workdir = runs.copy(trained, folder)
    with monkeypatch.context() as patch:
        _interrupt_after(patch, blocks)
        with pytest.raises(KeyboardInterrupt):
            predict_volume(path, workdir, options=SINGLE)
    return path, workdir


def test_an_interrupted_prediction_is_not_in_the_volume_and_goes_on(
    trained, expected, tmp_path, monkeypatch, capsys
):
    path, workdir = _interrupted(trained, tmp_path, monkeypatch)
    assert NAME not in open_volume(path).label_names and not final(path).exists()
    assert not ledger.is_complete(partial(path))
    done = len(ledger.read_ledger(partial(path)))
    assert 0 < done <= 5
    begun = _interrupt_after(monkeypatch, 99)
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert begun[0] == 12 - done
    assert f"in 12 blocks, {done} finished" in capsys.readouterr().out
    assert not partial(path).exists() and runs.files(final(path)) == expected


def test_a_finished_prediction_is_not_made_again(trained, expected, tmp_path, monkeypatch, capsys):
    path, workdir = runs.copy(trained, tmp_path)
    predict_volume(path, workdir, options=SINGLE)
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 0)
        assert predict_volume(path, workdir, options=SINGLE).complete
    assert "nuclei_pred, nothing to do" in capsys.readouterr().out
    begun = _interrupt_after(monkeypatch, 99)
    assert predict_volume(path, workdir, options=SINGLE, overwrite=True).complete
    assert begun[0] == 12 and runs.files(final(path)) == expected


@pytest.mark.parametrize(
    ("options", "slices", "message"),
    [
        ({"method": Method("whole")}, (), "method: .*windows of 32 .* -> .*whole slices"),
        ({}, (1, 2), "another grid"),
        ({"probabilities": True}, (), "outputs"),
        ({"normalization": "slice"}, (), "normalization.by: 'volume' -> 'slice'"),
    ],
)
def test_another_prediction_does_not_go_on_with_it(
    trained, tmp_path, monkeypatch, options, slices, message
):
    path, workdir = _interrupted(trained, tmp_path, monkeypatch)
    done = ledger.read_ledger(partial(path))
    other = dataclasses.replace(SINGLE, **options)
    with pytest.raises(
        InputError, match=f"unfinished prediction with other weights or settings .*{message}"
    ):
        predict_volume(path, workdir, options=other, slices=slices)
    assert ledger.read_ledger(partial(path)) == done
    assert predict_volume(path, workdir, options=other, slices=slices, overwrite=True).complete


def test_other_weights_or_images_are_another_prediction(trained, tmp_path):
    path, workdir = runs.copy(trained, tmp_path)
    parts = Work(Job(path, workdir)).parts
    from vemseg_jax.data.store.volume_writer import create_volume

    volume = open_volume(path)
    options = {"dtype": np.uint8, "voxel_size": volume.voxel_size, "downsample": 1}
    with create_volume(tmp_path / "other.zarr", shape=volume.shape, **options) as writer:
        for z in range(volume.shape[0]):
            writer.write(z, np.full(volume.shape[1:], z, np.uint8))
    other = Work(Job(tmp_path / "other.zarr", workdir)).parts
    differing = [name for name in parts if parts[name] != other[name]]
    assert differing == ["normalization", "volume"]
    _, again = runs.train_small(tmp_path / "again", depth=11)
    other = Work(Job(path, again)).parts
    assert "weights" in [name for name in parts if parts[name] != other[name]]


def test_an_overwritten_result_stays_until_the_new_one_is_complete(trained, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    predict_volume(path, workdir, options=SINGLE)
    before, whole = runs.files(final(path)), PredictOptions(method=Method("whole"))
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            predict_volume(path, workdir, options=whole, overwrite=True)
    assert runs.files(final(path)) == before
    # Started again as it was, it goes on.
    assert predict_volume(path, workdir, options=whole, overwrite=True).complete
    assert open_volume(path).label_info(NAME)["method"].startswith("whole slices")


def test_dying_before_the_label_is_listed(trained, expected, tmp_path, monkeypatch, capsys):
    path, workdir = runs.copy(trained, tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(placing, "clear_replaced", lambda _: None)
        patch.setattr(placing, "put_in_place", lambda *a: (put_in_place(*a), die()))
        with pytest.raises(KeyboardInterrupt):
            predict_volume(path, workdir, options=SINGLE)
    assert NAME not in open_volume(path).label_names and final(path).exists()
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert "nothing to do" in capsys.readouterr().out
    assert NAME in open_volume(path).label_names and runs.files(final(path)) == expected


@pytest.mark.parametrize("again", ["same", "other"])
def test_dying_while_a_result_is_replaced(trained, tmp_path, monkeypatch, again):
    path, workdir = runs.copy(trained, tmp_path)
    whole = dataclasses.replace(SINGLE, method=Method("whole"))
    predict_volume(path, workdir, options=SINGLE)
    before = runs.files(final(path))

    def die(partial, final):
        final.rename(final.with_name(f".{final.name}.replaced"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(placing, "put_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            predict_volume(path, workdir, options=whole, overwrite=True)
    assert not final(path).exists()
    if again == "same":
        # Without --overwrite too: what is to be replaced was settled when it began.
        assert predict_volume(path, workdir, options=whole).complete
        assert open_volume(path).label_info(NAME)["method"].startswith("whole")
    else:
        with pytest.raises(
            InputError, match="unfinished prediction with other weights or settings"
        ):
            predict_volume(path, workdir, options=SINGLE)
        assert runs.files(final(path)) == before
    assert [p.name for p in (path / "labels").glob("*.replaced")] == []


def test_killed_ten_times_it_ends_byte_for_byte_the_same(trained, tmp_path):
    volume = write_volume(tmp_path / "once" / "v.zarr", depth=60, size=(36, 42))
    expected = runs.expected_files((volume, trained[1]), tmp_path)
    path, workdir = runs.copy((volume, trained[1]), tmp_path / "killed")
    moments = random.Random(0)
    for _ in range(10):
        before = len(ledger.read_ledger(partial(path)))
        process = subprocess.Popen(runs.driver(path, workdir))
        while process.poll() is None and len(ledger.read_ledger(partial(path))) == before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.04))
        process.kill()
        process.wait()
        assert not final(path).exists() and len(ledger.read_ledger(partial(path))) > before
    assert subprocess.run(runs.driver(path, workdir), check=True)
    assert runs.files(final(path)) == expected


def _shard(path, z, array="0"):
    return path / array / "c" / str(z) / "0" / "0"


@pytest.mark.parametrize("damage", ["chunk", "lost"])
def test_a_slice_that_cannot_be_read_is_named_and_the_others_are_predicted(
    trained, expected, tmp_path, damage
):
    path, workdir = runs.copy(trained, tmp_path)
    shard = _shard(path, 6)
    content = shard.read_bytes()
    if damage == "chunk":
        shard.write_bytes(content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :])
    else:
        shard.unlink()
    result = predict_volume(path, workdir, options=SINGLE)
    assert not result.complete and list(result.failed) == [6]
    assert "slice 6 " in result.failed[6] and "convert the volume again" in result.failed[6]
    assert not final(path).exists() and not ledger.is_complete(partial(path))
    assert [verdict.missing for verdict in verify(path)] == [[6]]
    shard.write_bytes(content)
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected


def test_a_network_that_gives_no_numbers_is_noticed(trained, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    load = work.load_trained

    def broken(*args):
        import jax

        network = load(*args)
        return dataclasses.replace(
            network, variables=jax.tree.map(lambda x: x * np.nan, network.variables)
        )

    monkeypatch.setattr("vemseg_jax.infer.work.load_trained", broken)
    result = predict_volume(path, workdir)
    assert not result.complete and "gave no numbers" in result.failed[0]


def test_a_full_disk_keeps_what_is_written_and_says_what_to_free(
    trained, expected, tmp_path, monkeypatch
):
    path, workdir = runs.copy(trained, tmp_path)
    write = BlockWriter.write

    def failing(self, block, planes):
        if block.number == 5:
            raise OutputError(f"{NAME}: {block} could not be written (No space left on device)")
        return write(self, block, planes)

    with monkeypatch.context() as patch:
        patch.setattr(BlockWriter, "write", failing)
        message = r"No space left on device\). \d+ of 12 blocks are finished and stay; the others"
        with pytest.raises(
            InputError, match=message + r" take about .* [KMG]iB are free; make room on"
        ):
            predict_volume(path, workdir, options=SINGLE)
    assert 3 <= len(ledger.read_ledger(partial(path))) <= 5
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected


def test_a_disk_that_is_full_for_the_ledger_alone(trained, expected, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    add = ledger.LedgerWriter.add

    def failing(self, number, checksums):
        if number == 5:
            raise OSError(28, "No space left on device")
        add(self, number, checksums)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.LedgerWriter, "add", failing)
        with pytest.raises(InputError, match=r"No space left on device. 5 of 12 blocks"):
            predict_volume(path, workdir, options=SINGLE)
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected


def test_a_file_system_without_hard_links(trained, expected, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)

    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected


def test_a_disk_that_is_really_full(trained, expected, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        path, workdir = runs.copy(trained, disk)
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space left"), open(ballast, "wb") as file:
            while True:
                file.write(b"x" * 4096)
        ballast.write_bytes(b"x" * (ballast.stat().st_size - 60_000))
        with pytest.raises(InputError, match="start again"):
            predict_volume(path, workdir, options=SINGLE)
        kept = ledger.read_ledger(partial(path))
        ballast.unlink()
        assert predict_volume(path, workdir, options=SINGLE).complete
        assert kept.items() <= ledger.read_ledger(final(path)).items() and kept
        assert runs.files(final(path)) == expected
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_volume_that_cannot_be_written_is_refused_before_anything_is_predicted(
    trained, tmp_path, monkeypatch
):
    path, workdir = runs.copy(trained, tmp_path)
    begun = _interrupt_after(monkeypatch, 99)

    def read_only(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with pytest.raises(InputError, match=r"labels: cannot be written \(Permission denied\)"):
        predict_volume(path, workdir)
    assert begun[0] == 0


def test_verify_finds_what_is_damaged(trained, tmp_path):
    path, workdir = runs.copy(trained, tmp_path)
    predict_volume(path, workdir, options=SINGLE)
    (sound,) = verify(path)
    assert sound.is_sound
    assert sound.lines() == ["nuclei_pred: all 12 blocks are as they were written"]
    volume = open_volume(path)
    array = volume.label(NAME, "training")
    shard = _shard(final(path), 3)
    content = bytearray(shard.read_bytes())
    content[2] ^= 255
    shard.write_bytes(content)
    _shard(final(path), 7).unlink()
    import tensorstore as ts

    writable = ts.open(array.spec(), open=True, read=True, write=True).result()
    plane = 1 - writable[9].read().result()
    writable[9].write(plane).result()
    (verdict,) = verify(path, [NAME])
    assert list(verdict.damaged) == [3, 7, 9] and not verdict.missing
    assert "slice 3 cannot be read" in verdict.damaged[3]
    assert "slice 9 is not what was written" in verdict.damaged[9]
    assert "3 of 12 blocks are damaged; predict again with --overwrite" in verdict.lines()[0]
    with pytest.raises(InputError, match=r"'nuclei' has no ledger .*: nuclei_pred"):
        verify(path, ["nuclei"])


def test_verify_needs_predictions(trained, tmp_path):
    path, _ = runs.copy(trained, tmp_path)
    with pytest.raises(InputError, match="holds no predictions"):
        verify(path)


def test_shards_share_the_blocks_in_any_order(trained, expected, tmp_path):
    path, workdir = runs.copy(trained, tmp_path)

    def run(shard, num_shards=3):
        sharing = Sharing(shard, num_shards)
        return predict_volume(path, workdir, options=SINGLE, sharing=sharing)

    first = run(2)
    assert not first.complete and not first.failed and first.left == 8
    assert sorted(ledger.read_ledger(partial(path))) == [2, 5, 8, 11]
    assert run(0).left == 4
    # The number of shards may change from run to run.
    assert run(0, 2).left == 2
    assert run(1, 2).complete
    assert runs.files(final(path)) == expected
    assert run(1).complete


def test_shards_at_the_same_time(trained, expected, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    command = runs.driver(path, workdir)
    command[2] = (
        command[2]
        .replace("options=options)", "options=options, sharing=Sharing(int(sys.argv[3]), 2))")
        .replace("import predict_volume", "import Sharing, predict_volume")
    )
    processes = [subprocess.Popen([*command, str(n)]) for n in range(2)]
    codes = [process.wait() for process in processes]
    # The one that ends last puts the label in its place; the other may have left blocks to it.
    assert 0 in codes and set(codes) <= {0, 1}
    assert runs.files(final(path)) == expected


def test_two_processes_do_not_do_the_same(trained, tmp_path, monkeypatch):
    path, workdir = _interrupted(trained, tmp_path, monkeypatch)
    with ledger.LedgerWriter(partial(path), shard=0, num_shards=1):
        with pytest.raises(InputError, match="another process is predicting shard 0 of 1"):
            predict_volume(path, workdir, options=SINGLE)
        with pytest.raises(InputError, match="another process is writing it"):
            predict_volume(path, workdir, options=PredictOptions(), overwrite=True)


@pytest.mark.parametrize(
    ("sharing", "overwrite", "message"),
    [
        (Sharing(3, 3), False, "shards count from 0 to num_shards - 1"),
        (Sharing(0, 2), True, "--overwrite does not go with --num_shards"),
    ],
)
def test_shards_that_make_no_sense(trained, sharing, overwrite, message):
    with pytest.raises(InputError, match=message):
        predict_volume(*trained, sharing=sharing, overwrite=overwrite)


def test_a_line_that_was_cut_short_does_not_count(trained, expected, tmp_path, monkeypatch):
    path, workdir = _interrupted(trained, tmp_path, monkeypatch)
    file = partial(path) / "ledger" / "0-of-1.jsonl"
    done = ledger.read_ledger(partial(path))
    file.write_bytes(file.read_bytes()[:-3])
    assert len(ledger.read_ledger(partial(path))) == len(done) - 1
    assert predict_volume(path, workdir, options=SINGLE).complete
    assert runs.files(final(path)) == expected
    file = final(path) / "ledger" / "0-of-1.jsonl"
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    with pytest.raises(InputError, match=r"0-of-1.jsonl: line 1 is damaged"):
        verify(path)


def test_dask_without_its_package(trained, tmp_path, monkeypatch):
    path, workdir = runs.copy(trained, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(
        InputError, match=r"needs the package distributed; run: .* install '?distributed"
    ):
        predict_volume(path, workdir, engine=Engine("dask"))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine("local", scheduler="tcp://127.0.0.1:1"), "belong to --engine=dask"),
        (Engine("dask", "tcp://127.0.0.1:1", "file"), "give one of them"),
    ],
)
def test_engines_that_make_no_sense(trained, engine, message):
    with pytest.raises(InputError, match=message):
        predict_volume(*trained, engine=engine)
