"""Every benchmark of a preset, each in a process of its own; what is measured is not done again.

    python benchmarks/run_all.py --preset=smoke|cpu|gpu --output=DIR [--peer=torch] [--only=REGEX]

Writes `DIR/NAME.json` for each benchmark and `DIR/NAME.log`; a benchmark that fails leaves its log,
is named at the end, and makes the exit status 1. Started again it does what is missing. Then
`python benchmarks/report.py --results=DIR` makes tables and plots of it.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import app, flags

HERE = Path(__file__).parent
PRESETS = ("smoke", "cpu", "gpu")
_PRESET = flags.DEFINE_enum("preset", None, list(PRESETS), "What to run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_PEER = flags.DEFINE_enum("peer", None, ["torch"], "Also time training steps with it.")
_ONLY = flags.DEFINE_string("only", "", "Names to run, a regular expression.")

# The study's Table 1: every network, supervised, and the two semi-supervised methods.
TABLE_1 = (
    "resunet", "unetplusplus", "unetplusplus_cps", "smp_unet", "fractal_resnet", "ceecnet_v1",
    "ceecnet_v2", "senformer", "ssl_resunet", "ssl_resunet_cutmix", "ssl_unetplusplus",
    "ssl_unetplusplus_cutmix",
)  # fmt: skip
# Networks with a twin in segmentation_models_pytorch.
TWINS = ("unetplusplus", "unetplusplus_cps", "smp_unet", "ssl_unetplusplus_cutmix")

# A script and its flags.
Job = tuple[str, Sequence[str]]


def _table_1(configs: Sequence[str], precision: str, *flags: str, peer: bool) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for name in configs:
        with_peer = ("--peer=torch",) if peer and name in TWINS else ()
        arguments = (f"--configs=configs/{name}.py", f"--precision={precision}", *flags)
        jobs[f"train_{name}_{precision}"] = ("train_time", (*arguments, *with_peer))
    return jobs


def smoke(output: Path, *, peer: bool) -> dict[str, Job]:
    """Every script once, as small as it goes: minutes on two cores."""
    small = ("--batch=2", "--crop=64", "--repeats=2")
    pair = ("--batch=4", "--crop=64", "--repeats=2")
    loading = ("--slices=8", "--size=2304,2304", "--parts=crops,step", "--seconds=1")
    scaling = ("--batches=1,2", "--crops=32,64", "--sizes=64,128", "--repeats=2")
    return {
        **_table_1(("small_unet",), "float32", *small, peer=False),
        **_table_1(("small_unet",), "float16", *small, peer=False),
        **_table_1(("ssl_unetplusplus_cutmix_small",), "float32", *pair, peer=False),
        "inference": ("inference", ("--network=small_unet", "--size=2304,2304", "--slices=1")),
        "data_loading": ("data_loading", (f"--data={output / 'data'}", *loading)),
        "scaling": ("scaling", scaling),
    }


def cpu(output: Path, *, peer: bool) -> dict[str, Job]:
    """What two cores can do in about an hour: small batches and crops, extrapolated."""
    size = ("--batch=2", "--crop=256", "--repeats=5")
    pair = ("--batch=4", "--crop=256", "--repeats=3")
    single = [name for name in TABLE_1 if not name.startswith("ssl")]
    pairs = [name for name in TABLE_1 if name.startswith("ssl")]
    unet = "configs/unetplusplus_cps.py"
    return {
        **_table_1(single, "float32", *size, peer=peer),
        **_table_1(("unetplusplus_cps",), "bfloat16", *size, peer=False),
        **_table_1(("unetplusplus_cps",), "float16", *size, peer=False),
        **_table_1(pairs, "float32", *pair, peer=peer),
        "inference": ("inference", ()),
        "data_loading": ("data_loading", (f"--data={output / 'data'}",)),
        "scaling": ("scaling", (f"--config={unet}", "--what=batch,crop,inference")),
        "devices": ("scaling", ("--what=devices", "--batches=4", "--crops=128")),
        "convolutions": ("convolutions", ()),
    }


def gpu(output: Path, *, peer: bool) -> dict[str, Job]:
    """The schedule of the study at its size, in each type, and the questions about the pair."""
    jobs: dict[str, Job] = {}
    for precision in ("float32", "bfloat16", "float16"):
        jobs |= _table_1(TABLE_1, precision, "--repeats=20", peer=peer)
    ssl = ("--configs=configs/ssl_unetplusplus_cutmix.py", "--repeats=20")
    for form, extra in {
        "merged": ("--statistics=merged",),
        "vmapped": ("--vmapped",),
        "scan_10": ("--steps_per_dispatch=10", "--repeats=5"),
        "scan_50": ("--steps_per_dispatch=50", "--repeats=3"),
    }.items():
        jobs[f"train_ssl_unetplusplus_cutmix_{form}"] = ("train_time", (*ssl, *extra))
    unet = "--config=configs/unetplusplus_cps.py"
    grown = ("--batches=1,2,4,8,16", "--crops=128,256,512,1024", "--sizes=512,1024,2048,4096")
    for precision in ("float32", "bfloat16"):
        kind = f"--precision={precision}"
        jobs[f"scaling_{precision}"] = ("scaling", (unet, kind, *grown))
        jobs[f"inference_{precision}"] = ("inference", (kind,))
    jobs["data_loading"] = ("data_loading", (f"--data={output / 'data'}",))
    jobs["convolutions"] = ("convolutions", ())
    return jobs


def _environment(name: str) -> Mapping[str, str]:
    if name != "devices":
        return os.environ
    count = "--xla_force_host_platform_device_count=4"
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()}


def run(name: str, job: Job, output: Path) -> bool:
    """Runs one benchmark; returns whether it left its result."""
    script, arguments = job
    result, log = output / f"{name}.json", output / f"{name}.log"
    command = [sys.executable, str(HERE / f"{script}.py"), *arguments, f"--output={result}"]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        file.write(f"$ python benchmarks/{script}.py {' '.join(arguments)}\n")
        file.flush()
        status = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=_environment(name), check=False
        ).returncode
    done = status == 0 and result.exists()
    state = "done" if done else f"FAILED (exit status {status}, see {log})"
    print(f"{name:45s} {time.monotonic() - start:7.1f} s  {state}", flush=True)
    return done


def main(argv: list[str]) -> int:
    """Runs what is missing."""
    del argv
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    presets = {"smoke": smoke, "cpu": cpu, "gpu": gpu}
    jobs = presets[_PRESET.value](output, peer=_PEER.value is not None)
    wanted = {name: job for name, job in jobs.items() if re.search(_ONLY.value, name)}
    missing = [name for name in wanted if not (output / f"{name}.json").exists()]
    print(f"{len(wanted)} benchmarks, {len(wanted) - len(missing)} done before", flush=True)
    failed = [name for name in missing if not run(name, wanted[name], output)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    app.run(main)
