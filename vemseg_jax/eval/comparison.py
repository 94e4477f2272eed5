"""Which labels of a volume are compared, on which slices and at which level."""

import dataclasses
from collections.abc import Mapping, Sequence

from vemseg_jax.data.store.label_names import structure_of
from vemseg_jax.data.store.label_writer import ANNOTATION, PREDICTION
from vemseg_jax.data.store.lineage import SAME_IMAGES
from vemseg_jax.data.store.volume import FULL, IGNORE, TRAINING, Volume
from vemseg_jax.errors import InputError
from vemseg_jax.eval import provenance
from vemseg_jax.eval.report import TEST, TRAIN, VALIDATION


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A prediction and the label it is compared with, on which slices and at which level.

    `seen` are slices whose images took part in semi-supervised training, without their labels.
    """

    title: str
    structure: str
    prediction: str
    truth: str
    level: str
    roles: dict[int, str]
    notes: tuple[str, ...]
    seen: frozenset[int] = frozenset()


def compare(
    volume: Volume,
    *,
    predictions: Sequence[str] | None,
    truth: Mapping[str, str],
    exclude: Sequence[int] | None,
    level: str | None,
) -> list[Comparison]:
    """Pairs each prediction with its truth and gives each common slice a role."""
    names = _prediction_names(volume, predictions)
    structures = [_structure(volume, name) for name in names]
    unknown = set(truth) - set(structures)
    if unknown:
        raise InputError(
            f"--truth: found the structures {sorted(unknown)}; "
            f"the predictions of {volume.path} are of {sorted(set(structures))}"
        )
    result = []
    for name, structure in zip(names, structures, strict=True):
        label = truth.get(structure, structure)
        _check_truth(volume, label, structure=structure)
        roles, notes = _roles(volume, name, label, exclude=exclude)
        result.append(
            Comparison(
                title=structure if structures.count(structure) == 1 else name,
                structure=structure,
                prediction=name,
                truth=label,
                level=_level(volume, name, label, level=level),
                roles=roles,
                notes=(*notes, *provenance.notes(volume, name, label, excluded=exclude)),
                seen=frozenset(provenance.seen_unlabelled(volume.label_info(name))),
            )
        )
        if TEST not in roles.values():
            raise InputError(_nothing_left(volume, result[-1]))
    return result


def _prediction_names(volume: Volume, wanted: Sequence[str] | None) -> list[str]:
    there = [n for n in volume.label_names if volume.label_info(n).get("kind") == PREDICTION]
    if not there:
        raise InputError(
            f"{volume.path}: found no predicted label (labels: {listed(volume.label_names)}); "
            "make one with vemseg-predict"
        )
    for name in wanted or ():
        if name not in there:
            raise InputError(
                f"--predictions: {name!r} is no predicted label of {volume.path}; "
                f"there are: {listed(there)}"
            )
    return list(dict.fromkeys(wanted)) if wanted else there


def _structure(volume: Volume, prediction: str) -> str:
    structure = volume.label_info(prediction).get("structure")
    if not isinstance(structure, str) or not structure:
        raise InputError(
            f"{volume.path}: label {prediction!r} does not record its structure; "
            "predict it again with vemseg-predict"
        )
    return structure


def _check_truth(volume: Volume, label: str, *, structure: str) -> None:
    kinds = {name: volume.label_info(name).get("kind") for name in volume.label_names}
    usable = [name for name, kind in kinds.items() if kind == ANNOTATION]
    if label not in usable:
        what = f"a label of kind {kinds[label]!r}" if label in kinds else "no such label"
        raise InputError(
            f"{volume.path}: {label!r} cannot be the truth of {structure!r}, found {what}; "
            f"{_other_truth(usable, structure)}"
        )


def _other_truth(annotations: Sequence[str], structure: str) -> str:
    """What to do about a structure without a truth, with the labels that there are."""
    if not annotations:
        return f"the volume has no annotation: convert it again with --labels={structure}=PATH"
    # Annotations of other structures are no truth of this one.
    own = [name for name in annotations if structure_of(name).startswith(structure)]
    if own:
        return f"give --truth={structure}={own[0]}" + (
            f", or another of {listed(own)}" if len(own) > 1 else ""
        )
    return (
        f"the volume's annotations are {listed(annotations)}: score other predictions with"
        f" --predictions, convert again with --labels={structure}=PATH, or, if one of them is"
        f" {structure} under another name, give --truth={structure}={annotations[0]}"
    )


def _roles(
    volume: Volume, prediction: str, label: str, *, exclude: Sequence[int] | None
) -> tuple[dict[int, str], list[str]]:
    info = volume.label_info(prediction)
    recorded = info.get("training_slices")
    if recorded is None and exclude is None:
        raise InputError(
            f"{volume.path}: label {prediction!r} does not record its training slices; "
            "give them with --exclude=0,25,... or --exclude= if there are none"
        )
    training = set(recorded or ()) if exclude is None else set(exclude)
    validation = set(info.get("validation_slices") or ())
    labelled = set(volume.labelled_slices(label))
    covered = set(volume.labelled_slices(prediction))
    roles = {
        z: TRAIN if z in training else VALIDATION if z in validation else TEST
        for z in sorted(labelled & covered)
    }
    notes = []
    missing = len(labelled - covered)
    if missing:
        notes.append(f"{missing} labelled slices of {label!r} are not covered by {prediction!r}.")
    scored_anyway = sorted(z for z in set(recorded or ()) - training if roles.get(z, TRAIN) == TEST)
    if scored_anyway:
        notes.append(
            f"CAUTION: --exclude replaced the training slices that {prediction!r} records; "
            f"slices it was trained on are scored: {listed(scored_anyway)}."
        )
    return roles, notes


def _nothing_left(volume: Volume, comparison: Comparison) -> str:
    common, label = len(comparison.roles), comparison.truth
    if not common:
        found = f"no slice labelled in {label!r} is covered by {comparison.prediction!r}"
    else:
        found = f"all {common} slices labelled in {label!r} were used for training or validation"
        known = volume.label_info(comparison.prediction).get("known_by") or ()
        found += "".join(f" ({text})" for text in known if text != SAME_IMAGES.text)
    annotations = [n for n in volume.label_names if volume.label_info(n).get("kind") == ANNOTATION]
    own = [n for n in annotations if n != label and n.startswith(comparison.structure)]
    advice = "label more slices, or train with --config.data.num_train_slices below their number"
    if own:
        advice += f", or give --truth={comparison.structure}={own[0]}"
    return f"{volume.path}: no slice is left to score {comparison.structure!r}: {found}; {advice}"


def has_level(volume: Volume, name: str, level: str) -> bool:
    """Whether the label `name` is stored at `level`."""
    return level in volume.label_info(name)["levels"]


def _level(volume: Volume, prediction: str, label: str, *, level: str | None) -> str:
    if level not in (None, TRAINING, FULL):
        raise InputError(f"--level: found {level!r}, should be {TRAINING!r} or {FULL!r}")
    names = (prediction, label)
    if level is None:
        in_both = all(has_level(volume, name, TRAINING) for name in names)
        level = TRAINING if in_both or not all(has_level(volume, n, FULL) for n in names) else FULL
    shapes = {name: tuple(volume.label(name, level).shape) for name in names}
    if volume.has_ignore:
        shapes[IGNORE] = tuple(volume.label(IGNORE, level).shape)
    if len(set(shapes.values())) > 1:
        raise InputError(
            f"{volume.path}: labels differ in shape (z, y, x) at level {level!r}: "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )
    return level


def check_slices(
    volume: Volume,
    *,
    z_ranges: Sequence[tuple[int, int]],
    exclude: Sequence[int] | None,
    overlay_slices: Sequence[int] | None,
) -> None:
    """Raises InputError when a range or a slice number lies outside the volume."""
    depth = volume.shape[0]
    for start, stop in z_ranges:
        if not 0 <= start < stop <= depth:
            raise InputError(
                f"--z_ranges: found {start}:{stop}; {volume.path} has {depth} slices, a range is "
                f"start:stop with 0 <= start < stop <= {depth}"
            )
    for flag, values in (("--exclude", exclude), ("--overlay_slices", overlay_slices)):
        for z in values or ():
            if not 0 <= z < depth:
                raise InputError(
                    f"{flag}: found slice {z}; {volume.path} has the slices 0 to {depth - 1}"
                )


def listed(values: Sequence[object], limit: int = 12) -> str:
    """The first `limit` values and their number; "none" when there are none."""
    shown = ", ".join(str(value) for value in values[:limit])
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return shown + more or "none"
