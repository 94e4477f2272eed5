"""`vemseg-study`: volumes x structures x label budgets x methods x seeds, and the report."""

import sys

from absl import flags

from vemseg_jax.cli import app
from vemseg_jax.cli.flag_paths import given_path
from vemseg_jax.commands import quoted
from vemseg_jax.config import PRECISIONS
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

_PRESET = flags.DEFINE_enum(
    "preset",
    None,
    ["smoke", "phantom_small", "hela", "paper"],
    "phantom_small takes less than an hour on two cores; hela needs --data; paper is the paper's"
    " schedule on --volumes; smoke is a trial that all of it runs.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of runs and report.", required=True)
_DATA = flags.DEFINE_string("data", None, "For --preset=hela: folder with em.tif and its masks.")
_VOLUMES = flags.DEFINE_list("volumes", [], "For --preset=paper: converted volumes, as NAME=PATH.")
_CONFIGS = flags.DEFINE_string(
    "configs", "configs", "For --preset=paper: folder of the experiments."
)
_BUDGETS = flags.DEFINE_list(
    "budgets", [], "Numbers of labelled slices, in place of those of the preset."
)
_METHODS = flags.DEFINE_list("methods", [], "Only these methods.")
_SEEDS = flags.DEFINE_list("seeds", [], "Seeds, in place of those of the preset.")
_PREDICTION = flags.DEFINE_enum(
    "prediction_method",
    None,
    ["window", "whole"],
    "As --method of vemseg-predict; default the preset's: window for paper and smoke.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    list(PRECISIONS),
    "Type of activations of all runs; default that of each configuration.",
)
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Run nothing; report what there is.")

UNSOUND_STATUS = 1


def _numbers(flag: str, texts: list[str], least: int) -> list[int]:
    try:
        values = [int(text) for text in texts]
    except ValueError:
        values = [least - 1]
    if any(value < least for value in values):
        found = ",".join(texts)
        raise InputError(f"--{flag}={found}: give whole numbers of at least {least}")
    return values


def main() -> int | None:
    """Runs what is missing and writes the report; status 1 if a run failed or is missing."""
    from vemseg_jax.study import presets
    from vemseg_jax.study.report import write_report
    from vemseg_jax.study.run import check_study, claim, outcomes, run_study

    output = local_path(_OUTPUT.value, flag="--output")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output} is a file; give a folder")
    if _PRESET.value == "hela":
        study = presets.hela(output, given_path(_DATA))
    elif _PRESET.value == "paper":
        study = presets.paper(_VOLUMES.value, local_path(_CONFIGS.value, flag="--configs"))
    else:
        study = {"smoke": presets.smoke, "phantom_small": presets.phantom_small}[_PRESET.value](
            output
        )
    study = presets.narrowed(
        study,
        budgets=_numbers("budgets", _BUDGETS.value, 1),
        methods=_METHODS.value,
        seeds=_numbers("seeds", _SEEDS.value, 0),
        prediction=_PREDICTION.value,
        precision=_PRECISION.value,
    )
    if _REPORT_ONLY.value:
        check_study(study)
        claim(study, output)
        found = outcomes(study, output)
    else:
        found = run_study(study, output)
    page = write_report(study, found, output, command=_command())
    failed = sum(outcome.failed is not None for outcome in found)
    missing = sum(outcome.result is None for outcome in found) - failed
    said = [f"{failed} runs FAILED"] if failed else []
    said += [f"{missing} not run"] if missing else []
    print(f"{', '.join(said) or 'done'}: report in {page}")
    return UNSOUND_STATUS if said else None


def _command() -> str:
    """As the reader would type it."""
    words = ["vemseg-study", *(a for a in sys.argv[1:] if a != "--report_only")]
    return " ".join(quoted(word) for word in words)


def entry() -> None:
    """The console script."""
    app.run(main, kept="the runs that are done are kept, and what the last one had saved")


if __name__ == "__main__":
    entry()
