"""What a reader of scores must know of where a prediction and its truth come from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vemseg_jax.data.store import lineage, ome
from vemseg_jax.data.store.label_writer import ANNOTATION
from vemseg_jax.data.store.volume import Volume, open_volume
from vemseg_jax.errors import InputError


def seen_unlabelled(info: dict[str, Any]) -> set[int]:
    """Slices whose images, without their labels, took part in semi-supervised training.

    Args:
      info: attributes of a prediction.
    """
    return {int(z) for z in info.get("seen_unlabelled_slices") or ()}


def notes(
    volume: Volume, prediction: str, label: str, *, excluded: Sequence[int] | None
) -> Iterator[str]:
    """Sentences for the report: how training slices were recognised, and what is in doubt.

    Args:
      volume: that is scored.
      prediction: name of the predicted label.
      label: name of the truth.
      excluded: slices that are left out as training slices, in place of those recorded.
    """
    info = volume.label_info(prediction)
    trained_on = info.get("training_volume") or "an unknown volume"
    for text in info.get("known_by") or ():
        if text != lineage.SAME_IMAGES.text:
            yield (
                f"{prediction!r}: training volume recognised ({trained_on}; {text}), so that its"
                " training and validation slices are left out here too."
            )
    if excluded is None:
        yield from _doubts(volume, prediction, info)
    yield from _truth(volume, label)


def _doubts(volume: Volume, prediction: str, info: dict[str, Any]) -> Iterator[str]:
    for doubt in info.get("doubts") or ():
        slices = ",".join(map(str, doubt["slices"]))
        yield (
            f"CAUTION: {prediction!r} is of a network trained on {doubt['volume']}, which may show"
            f" the same images ({doubt['text']}). If so, slices it was trained on are scored here;"
            f" leave them out with --exclude={slices}"
        )
    if "known_by" in info or info.get("training_slices"):
        return
    # Earlier versions knew the training volume by its fingerprint alone.
    path = info.get("training_volume")
    found = _relation(volume, path) if path else None
    if found is not None:
        yield (
            f"CAUTION: {prediction!r} records no training slices here, but its network was trained"
            f" on {path}, which {'shows' if found.same else 'may show'} the same images"
            f" ({found.text}); predict again with --overwrite, or name them with --exclude"
        )


def _relation(volume: Volume, path: str) -> lineage.Relation | None:
    try:
        there = open_volume(path)
    except (InputError, OSError):
        return None
    return lineage.relation(lineage.identity(volume), lineage.identity(there))


def _truth(volume: Volume, label: str) -> Iterator[str]:
    """Whether what counts as the truth was converted from what a network predicted."""
    source = volume.label_info(label).get("source")
    for folder in (Path(source), Path(source).parent) if source else ():
        try:
            kind = ome.read_group(folder).get("vemseg", {}).get("kind", ANNOTATION)
        except (InputError, OSError, TypeError, AttributeError):
            continue
        if kind != ANNOTATION:
            yield (
                f"CAUTION: the truth {label!r} was converted from {source}, a {kind} of a network"
                " and no annotation."
            )
        return
