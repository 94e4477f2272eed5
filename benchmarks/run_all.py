"""Every benchmark of a preset, each in a process of its own; what is measured is not done again.

    python benchmarks/run_all.py --preset=smoke|cpu|gpu --output=DIR [--peer=torch] [--only=REGEX]

Writes `DIR/NAME.json` for each benchmark and `DIR/NAME.log`; one that fails says so there, is named
at the end, and makes the exit status 1. Started again it does what is missing or failed, or was
measured with other flags, by other code or on another machine. Then
`python benchmarks/report.py --results=DIR` makes tables and plots of it.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from peers import has_peer
from recording import load_result

from vemseg_jax import configs as experiments
from vemseg_jax.data.store.atomic import write_json
from vemseg_jax.paths import local_path

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
PRESETS = ("smoke", "cpu", "gpu")
_PRESET = flags.DEFINE_enum("preset", None, list(PRESETS), "What to run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_PEER = flags.DEFINE_enum("peer", None, ["torch"], "Also time training steps with it.")
_ONLY = flags.DEFINE_string("only", "", "Names to run, a regular expression.")

# The paper's Table 1: every network, supervised, and the two semi-supervised methods.
TABLE_1 = (
    "resunet", "unetplusplus", "unetplusplus_cps", "smp_unet", "fractal_resnet", "ceecnet_v1",
    "ceecnet_v2", "senformer", "ssl_resunet", "ssl_resunet_cutmix", "ssl_unetplusplus",
    "ssl_unetplusplus_cutmix",
)  # fmt: skip

# A script and its flags.
Job = tuple[str, Sequence[str]]


def _table_1(configs: Sequence[str], precision: str, *flags: str, peer: bool) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for name in configs:
        path = CONFIGS / f"{name}.py"
        with_peer = ("--peer=torch",) if peer and has_peer(experiments.get(path)) else ()
        arguments = (f"--configs={path}", f"--precision={precision}", *flags)
        jobs[f"train_{name}_{precision}"] = ("train_time", (*arguments, *with_peer))
    return jobs


def smoke(output: Path, *, peer: bool) -> dict[str, Job]:
    """Every script once, as small as it goes: minutes on two cores."""
    small = ("--batch=2", "--crop=64", "--repeats=2")
    pair = ("--batch=4", "--crop=64", "--repeats=2")
    loading = ("--slices=8", "--size=2304,2304", "--parts=crops,step", "--seconds=1")
    scaling = ("--batches=1,2", "--crops=32", "--sizes=64,128", "--repeats=2")
    scaling = (f"--config={CONFIGS / 'small_unet.py'}", *scaling)
    return {
        **_table_1(("small_unet",), "float32", *small, peer=peer),
        **_table_1(("small_unet",), "float16", *small, peer=peer),
        **_table_1(("ssl_unetplusplus_cutmix_small",), "float32", *pair, peer=peer),
        "inference": ("inference", ("--network=small_unet", "--size=2304,2304", "--slices=1")),
        "data_loading": ("data_loading", (f"--data={output / 'data'}", *loading)),
        "scaling": ("scaling", scaling),
    }


def cpu(output: Path, *, peer: bool) -> dict[str, Job]:
    """What two cores can do in about an hour: small batches and crops, extrapolated."""
    size = ("--batch=2", "--crop=256", "--repeats=7")
    pair = ("--batch=4", "--crop=128", "--repeats=7")
    single = [name for name in TABLE_1 if not name.startswith("ssl")]
    pairs = [name for name in TABLE_1 if name.startswith("ssl")]
    unet, small_unet = (CONFIGS / f"{name}.py" for name in ("unetplusplus_cps", "small_unet"))
    devices = ("--what=devices", "--batches=4", "--crops=128")
    # In the order of what is asked for first.
    first = ("unetplusplus_cps", "smp_unet")
    others = [name for name in single if name not in first]
    return {
        **_table_1(first, "float32", *size, peer=peer),
        **_table_1(pairs, "float32", *pair, peer=peer),
        **_table_1(others, "float32", *size, peer=peer),
        "inference": ("inference", ("--slices=1",)),
        "scaling": ("scaling", (f"--config={unet}", "--what=batch,crop,inference")),
        "devices": ("scaling", (f"--config={small_unet}", *devices)),
        **_table_1(("unetplusplus_cps",), "bfloat16", *size, peer=False),
        **_table_1(("unetplusplus_cps",), "float16", *size, peer=False),
        "data_loading": ("data_loading", (f"--data={output / 'data'}", "--seconds=8")),
        "convolutions": ("convolutions", ()),
    }


def gpu(output: Path, *, peer: bool) -> dict[str, Job]:
    """The schedule of the paper at its size, in each type, and the questions about the pair."""
    jobs: dict[str, Job] = {}
    for precision in ("float32", "bfloat16", "float16"):
        jobs |= _table_1(TABLE_1, precision, "--repeats=20", peer=peer)
    ssl = (f"--configs={CONFIGS / 'ssl_unetplusplus_cutmix.py'}", "--repeats=20")
    for form, extra in {
        "merged": ("--statistics=merged",),
        "vmapped": ("--vmapped",),
        "scan_10": ("--steps_per_dispatch=10", "--repeats=5"),
        "scan_50": ("--steps_per_dispatch=50", "--repeats=3"),
        "profile": (f"--profile={output / 'profile'}", "--repeats=5"),
        "profile_bfloat16": (f"--profile={output / 'profile'}", "--precision=bfloat16"),
    }.items():
        jobs[f"train_ssl_unetplusplus_cutmix_{form}"] = ("train_time", (*ssl, *extra))
    unet = f"--config={CONFIGS / 'unetplusplus_cps.py'}"
    grown = ("--batches=1,2,4,8,16", "--crops=128,256,512,1024", "--sizes=512,1024,2048,4096")
    for precision in ("float32", "bfloat16", "float16"):
        kind = f"--precision={precision}"
        what = "--what=batch,crop,inference"
        jobs[f"scaling_{precision}"] = ("scaling", (unet, kind, what, *grown))
        jobs[f"inference_{precision}"] = ("inference", (kind,))
    # A batch for 8 devices at the size of the paper's crops; of one device it is a single point.
    jobs["devices"] = ("scaling", (unet, "--what=devices", "--batches=16", "--crops=512"))
    jobs["data_loading"] = ("data_loading", (f"--data={output / 'data'}",))
    for precision in ("float32", "bfloat16"):
        jobs[f"convolutions_{precision}"] = ("convolutions", (f"--precision={precision}",))
    return jobs


def _environment(name: str) -> Mapping[str, str]:
    if name != "devices":
        return os.environ
    # Of a CPU; it does nothing to GPUs.
    count = "--xla_force_host_platform_device_count=4"
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()}


def _portable(script: str, arguments: Sequence[str], output: Path) -> str:
    """The command without the paths of this machine."""
    text = " ".join([f"python benchmarks/{script}.py", *arguments])
    return text.replace(f"{CONFIGS}{os.sep}", "configs/").replace(str(output), "DIR")


# What of a machine makes its results others.
SAME = ("device", "processor", "cores", "jax", "code")


def _machine() -> dict[str, Any]:
    """The machine that benchmarks run on; asked for elsewhere, since who asks holds its memory."""
    ask = "import json, recording; print(json.dumps(recording.machine()))"
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=HERE, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def is_measured(name: str, job: Job, output: Path, machine: Mapping[str, Any]) -> bool:
    """Whether there is a result of the same command, code and machine."""
    path = output / f"{name}.json"
    if not path.exists():
        return False
    found = load_result(path)
    same = all(found["machine"].get(key) == machine[key] for key in SAME)
    return same and found.get("command") == _portable(*job, output) and "failed" not in found


def run(name: str, job: Job, output: Path, machine: Mapping[str, Any]) -> bool:
    """Runs one benchmark; returns whether it left its result."""
    script, arguments = job
    result, log = output / f"{name}.json", output / f"{name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{script}.py"), *arguments, f"--output={result}"]
    said = _portable(script, arguments, output)
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        file.write(f"$ {said}\n")
        file.flush()
        status = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=_environment(name), check=False
        ).returncode
    done = status == 0 and result.exists()
    found = load_result(result) if result.exists() else {"benchmark": script, "machine": machine}
    if not done:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
        found = {"rows": [], "settings": {}, **found, "failed": f"exit status {status}: {last}"}
    write_json(result, {"command": said, **found})
    state = "done" if done else f"FAILED (exit status {status}, see {log})"
    print(f"{name:45s} {time.monotonic() - start:7.1f} s  {state}", flush=True)
    return done


def main(argv: list[str]) -> int:
    """Runs what is missing."""
    del argv
    output = local_path(_OUTPUT.value, flag="--output")
    output.mkdir(parents=True, exist_ok=True)
    presets = {"smoke": smoke, "cpu": cpu, "gpu": gpu}
    jobs = presets[_PRESET.value](output, peer=_PEER.value is not None)
    wanted = {name: job for name, job in jobs.items() if re.search(_ONLY.value, name)}
    machine = _machine()
    missing = [name for name, job in wanted.items() if not is_measured(name, job, output, machine)]
    print(f"{len(wanted)} benchmarks, {len(wanted) - len(missing)} done before", flush=True)
    failed = [name for name in missing if not run(name, wanted[name], output, machine)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    app.run(main)
