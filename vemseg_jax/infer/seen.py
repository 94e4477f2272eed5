"""Which slices of a volume a network has seen in training, in whatever copy they are met."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from vemseg_jax.data.store import lineage
from vemseg_jax.data.store.lineage import Identity, Relation
from vemseg_jax.data.store.volume import Volume
from vemseg_jax.infer.trained import Description


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A training volume that may show the same images: why, which, its slices that trained."""

    text: str
    volume: str
    slices: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a network has seen of a volume.

    Attributes:
      training, validation: slices whose labels trained it or chose its checkpoint.
      unlabelled: slices whose images alone it was trained on, of two networks.
      known_by: how the training volume was recognised in this one.
      doubts: where that cannot be told.
    """

    training: tuple[int, ...] = ()
    validation: tuple[int, ...] = ()
    unlabelled: tuple[int, ...] = ()
    known_by: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON values, for the result."""
        return {
            "training_slices": list(self.training),
            "validation_slices": list(self.validation),
            "seen_unlabelled_slices": list(self.unlabelled),
            "known_by": list(self.known_by),
            "doubts": [dataclasses.asdict(doubt) for doubt in self.doubts],
        }

    def lines(self) -> Iterator[str]:
        """For the log: warnings of what may be the training volume."""
        for doubt in self.doubts:
            yield (
                f"warning: this volume may show the images of the training volume {doubt.volume}"
                f" ({doubt.text}); if so, its slices {list(doubt.slices)} are no test slices, and"
                " vemseg-evaluate must be told so with --exclude"
            )


@dataclasses.dataclass(frozen=True)
class _Trained:
    """One training volume."""

    path: str
    fingerprint: str
    train: tuple[int, ...]
    val: tuple[int, ...]
    identity: Identity | None
    marks: Sequence[tuple[int, float, float]]
    z_range: tuple[int, int]


def _training_volumes(description: Description) -> Iterator[_Trained]:
    data = description.config.get("data", {})
    paths = [description.volume, *data.get("other_volumes", ())]
    splits = [(description.train_slices, description.val_slices)]
    splits += [(train, ()) for _, train in description.other_volumes]
    low, high = data.get("z_range") or (0, 0)
    for n, (fingerprint, (train, val)) in enumerate(
        zip(description.fingerprints, splits, strict=True)
    ):
        path = paths[n] if n < len(paths) else ""
        known = description.identities[n] if description.identities else None
        yield _Trained(
            path=path,
            fingerprint=fingerprint,
            train=train,
            val=val,
            identity=known or lineage.identity_at(path, fingerprint),
            marks=description.marks[n] if description.marks else (),
            z_range=(low, high) if n == 0 else (0, 0),
        )


def _relation(here: Identity, there: _Trained) -> Relation | None:
    if there.identity is not None:
        return lineage.relation(here, there.identity)
    # Of an earlier version, and the training volume is gone.
    if here.fingerprints[0] == there.fingerprint:
        return lineage.SAME_IMAGES
    return lineage.PREPROCESSED if there.fingerprint in here.fingerprints else None


def seen_slices(description: Description, volume: Volume) -> Seen:
    """What a network has seen of a volume: also of a copy, preprocessed, or converted anew.

    Args:
      description: of the network.
      volume: any volume.
    """
    here, depth = lineage.identity(volume), volume.shape[0]
    training: set[int] = set()
    validation: set[int] = set()
    unlabelled: set[int] = set()
    known_by, doubts = [], []
    for there in _training_volumes(description):
        found = _relation(here, there)
        if found is not None and found.same:
            training.update(there.train)
            validation.update(there.val)
            if description.networks == 2:
                low, high = there.z_range
                unlabelled.update(range(low, high or depth))
            known_by.append(found.text)
            continue
        marked = lineage.find_marked(volume, there.marks)
        if marked:
            training.update(z for z, its in marked.items() if its in there.train)
            validation.update(z for z, its in marked.items() if its in there.val)
            known_by.append("slices that are those of the training, grey value by grey value")
        elif found is not None:
            slices = tuple(sorted((*there.train, *there.val)))
            doubts.append(Doubt(found.text, there.path, slices))
    validation -= training
    unlabelled -= training | validation
    return Seen(
        training=tuple(sorted(z for z in training if z < depth)),
        validation=tuple(sorted(z for z in validation if z < depth)),
        unlabelled=tuple(sorted(z for z in unlabelled if z < depth)),
        known_by=tuple(dict.fromkeys(known_by)),
        doubts=tuple(doubts),
    )
