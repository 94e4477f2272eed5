"""How label images begin, beside what stands there, and how they take their place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vemseg_jax.config import differences
from vemseg_jax.data.store.atomic import clear_replaced, lock, put_in_place, unlock, write_json
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.label_writer import check_label_name, list_labels
from vemseg_jax.data.store.volume import LABELS
from vemseg_jax.errors import InputError
from vemseg_jax.infer import ledger
from vemseg_jax.infer.outputs import Output, final_directory, partial_directory
from vemseg_jax.infer.work import Work

# Names of the longer parts are enough to tell what differs.
_LONG_PARTS = ("grid", "network")


def missing_blocks(work: Work, open_ones: Sequence[Output]) -> list[int]:
    """Blocks that some label image lacks."""
    lacking: set[int] = set()
    for output in open_ones:
        missing = ledger.missing(partial_directory(work.volume.path, output.name))
        if missing is None and not _stands(work, output):
            missing = list(range(len(work.grid)))
        # Otherwise another shard has just put it in its place.
        lacking.update(missing or ())
    return sorted(lacking)


def _stands(work: Work, output: Output) -> bool:
    """Whether the label image is in its place, from this very prediction."""
    header = ledger.read_header(final_directory(work.volume.path, output.name))
    return header is not None and header["fingerprint"] == work.fingerprint


def begin(work: Work, *, overwrite: bool) -> list[Output]:
    """Prepares what is to be written; the label images that are not complete yet.

    Raises:
      InputError: something else stands there, or nothing can be written.
    """
    labels = work.volume.path / LABELS
    try:
        labels.mkdir(exist_ok=True)
        # A process that died between placing a label and listing it left it unlisted.
        list_labels(labels)
        taken = lock(labels, wait=True)
    except OSError as error:
        raise _unwritable(labels, error) from error
    try:
        for output in work.outputs:
            clear_replaced(final_directory(work.volume.path, output.name))
        open_ones, stale = _open_outputs(work, overwrite=overwrite)
        for partial in stale:
            ledger.discard(partial)
        for output in open_ones:
            ledger.write_header(partial_directory(work.volume.path, output.name), work.parts)
            work.writer(output)
    except OSError as error:
        raise _unwritable(labels, error) from error
    finally:
        unlock(taken)
    return open_ones


def _unwritable(labels: Path, error: OSError) -> InputError:
    return InputError(
        f"{labels}: cannot be written ({error.strerror or error}): {reason(error, writing=True)}"
        " (predictions go into the volume; it may be copied to another disk)"
    )


def _open_outputs(work: Work, *, overwrite: bool) -> tuple[list[Output], list[Path]]:
    """Label images that are not complete, and what is to be removed for them."""
    path = work.volume.path
    partials = {o.name: partial_directory(path, o.name) for o in work.outputs}
    headers = {name: ledger.read_header(partial) for name, partial in partials.items()}
    mine = {
        name: header is not None and header["fingerprint"] == work.fingerprint
        for name, header in headers.items()
    }
    open_ones, stale = [], []
    for output in work.outputs:
        check_label_name(output.name, output.kind)
        partial, header = partials[output.name], headers[output.name]
        if not mine[output.name]:
            if header is not None and not overwrite:
                raise InputError(
                    f"{partial}: an unfinished prediction with other weights or settings"
                    f" ({_differing(header['parts'], work.parts)}); use its own to"
                    " finish it, --overwrite to remove it, or choose another --suffix"
                )
            # A run that was interrupted may have finished some of its label images.
            if _is_done(work, output, overwrite=overwrite, resumed=any(mine.values())):
                continue
            if partial.exists():
                stale.append(partial)
        open_ones.append(output)
    return open_ones, stale


def _is_done(work: Work, output: Output, *, overwrite: bool, resumed: bool) -> bool:
    """Whether the label image stands there complete, from this very prediction.

    Raises:
      InputError: another one stands there and is not to be replaced.
    """
    final = final_directory(work.volume.path, output.name)
    if not final.exists():
        return False
    listed = output.name in work.volume.label_names
    kind = work.volume.label_info(output.name).get("kind") if listed else "unlisted"
    if kind != output.kind:
        raise InputError(
            f"{final}: a label of kind {kind!r} has this name; choose another --suffix for the"
            f" {output.kind}"
        )
    if _stands(work, output) and (resumed or not overwrite):
        print(f"complete    {output.name}, nothing to do")
        return True
    if overwrite:
        return False
    header = ledger.read_header(final)
    found = ""
    if header:
        found = f" from other weights or settings ({_differing(header['parts'], work.parts)})"
    raise InputError(f"{final}: exists already{found}; give --overwrite to replace it")


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """In a few words, in what two predictions differ."""
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    short = [name for name in names if name not in _LONG_PARTS]
    texts = differences(
        {name: found.get(name) for name in short}, {name: wanted.get(name) for name in short}
    )
    return ", ".join([*texts, *(f"another {name}" for name in names if name in _LONG_PARTS)])


def finish(work: Work, open_ones: Sequence[Output]) -> None:
    """Puts complete label images in their place; several shards may come here at once."""
    labels = work.volume.path / LABELS
    for output in open_ones:
        partial = partial_directory(work.volume.path, output.name)
        taken = lock(labels, wait=True)
        try:
            if not partial.exists():
                continue
            # A writer that was killed leaves the lock of what it wrote.
            for stale in partial.rglob("*.__lock"):
                stale.unlink()
            work.layout.write_group(
                partial, output.name, work.attributes(output), shades=output.is_shaded
            )
            complete = {"fingerprint": work.fingerprint, "blocks": len(work.grid)}
            write_json(partial / ledger.COMPLETE, complete)
            put_in_place(partial, final_directory(work.volume.path, output.name))
            clear_replaced(final_directory(work.volume.path, output.name))
        finally:
            unlock(taken)
    list_labels(labels)
