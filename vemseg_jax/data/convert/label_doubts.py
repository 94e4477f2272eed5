"""What may be wrong with the labels of a structure once all of them are read."""

from vemseg_jax.data.convert.empty_slices import EMPTY, NONE, LabelContent, doubtful
from vemseg_jax.data.convert.label_files import LabelPlan
from vemseg_jax.data.store.slice_list import slice_list

# Slices that a message lists one by one, so that they can be copied into a flag.
LISTED_SLICES = 40


def label_doubt(plan: LabelPlan, content: LabelContent) -> str | None:
    """Why labels cannot be used, with the flag that would help; None where they can."""
    path, name = plan.origin, plan.name
    values = plan.rule.doubt(path)
    if values is not None:
        return values
    if not content.painted:
        counted = "; --labelled_slices counts from 0" if plan.chosen else ""
        return (
            f"{path}: no pixel of {name} on any of its {len(content.pixels)} labelled slices; at"
            f" least one must show the structure{counted}"
        )
    if plan.unlabelled_slices is not None or plan.chosen:
        return None
    why = doubtful(content)
    if why is None:
        return None
    empty, painted = content.empty, content.painted
    slices = ""
    if not plan.source.has_files and len(painted) <= LISTED_SLICES:
        slices = f" or --labelled_slices={name}={','.join(map(str, painted))}"
    return (
        f"{path}: no {name} on {len(empty)} of {len(content.pixels)} labelled slices"
        f" ({slice_list(empty)}), and {why}; give --unlabelled_slices={name}={EMPTY}{slices} if"
        f" nobody labelled them, or --unlabelled_slices={name}={NONE} if {name} is absent there"
        " and they count as background"
    )


def label_warnings(plan: LabelPlan, content: LabelContent) -> list[str]:
    """What looks odd though a flag, or the rule of its format, settles it."""
    warnings = [warning for warning in [plan.rule.warning()] if warning]
    why = doubtful(content) if plan.chosen else None
    if why is not None:
        warnings.append(
            f"of the slices in --labelled_slices={plan.name}=…, which counts from 0,"
            f" {len(content.empty)} show no {plan.name} ({slice_list(content.empty)}), and {why}"
        )
    return warnings


def label_record(plan: LabelPlan) -> dict[str, object]:
    """What the volume keeps of how labels were understood. Call it once all are read."""
    record: dict[str, object] = {"values": plan.rule.record()}
    if plan.rule.unlabelled:
        record["unlabelled_values"] = list(plan.rule.unlabelled)
    if plan.unlabelled_slices is not None and not plan.chosen:
        record["unlabelled_slices"] = plan.unlabelled_slices
    return record
