"""The folder that an evaluation, or another result of a volume, is written to."""

import json
import os
from pathlib import Path

from vemseg_jax.data.store.volume import Volume
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

FORMAT = "vemseg evaluation 1"


def check_output(
    volume: Volume,
    output: str | os.PathLike[str] | None,
    *,
    overwrite: bool,
    what: str = "evaluation",
    written_as: str = FORMAT,
) -> Path:
    """The folder to write: `output`, or NAME-evaluation beside the volume.

    Args:
      volume: whose results they are.
      output: the folder; None names it after the volume.
      overwrite: whether it may replace an earlier one.
      what: the kind of result, part of the name.
      written_as: the "format" in the summary of a result of this kind.

    Raises:
      InputError: it exists and may not be replaced, or it overlaps the volume.
    """
    name = volume.path.name.removesuffix(".zarr").removesuffix(".ome")
    folder = volume.path.with_name(f"{name}-{what}")
    if output is not None:
        folder = local_path(output, flag="--output")
    inside, around = folder.resolve(), volume.path.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise InputError(
            f"--output={folder}: overlaps the volume {volume.path}; name a folder of its own"
        )
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        if not overwrite:
            raise InputError(f"--output={folder}: exists; name another folder or give --overwrite")
        if not _is_result(folder, written_as):
            raise InputError(
                f"--output={folder}: exists and holds no earlier {what}, so --overwrite does "
                "not replace it; name another folder"
            )
    return folder


def _is_result(folder: Path, written_as: str) -> bool:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("format") == written_as
