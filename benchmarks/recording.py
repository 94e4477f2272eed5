"""What every benchmark shares: the machine in words, medians with their spread, JSON files."""

import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import vemseg_jax
from vemseg_jax.data.store.atomic import write_json
from vemseg_jax.paths import local_path

HERE = Path(__file__).resolve().parent
# Scripts that start or show others, and change nothing of what is measured.
_OUTSIDE = ("report.py", "run_all.py")
# What device names begin with -> TFLOP/s of dense products and GB/s of memory on the data sheets of
# NVIDIA: float32 outside of the tensor cores on V100, TF32 (which jax uses for float32 where there
# is any) since. The first that fits counts.
_V100 = {"float32": 15.7, "float16": 125.0, "memory": 900.0}
_A100 = {"float32": 156.0, "bfloat16": 312.0, "float16": 312.0}
_H100 = {"float32": 494.5, "bfloat16": 989.0, "float16": 989.0, "memory": 3350.0}
DATASHEET = {
    "Tesla V100-SXM2": _V100,
    "Tesla V100-SXM3": _V100,
    "Tesla V100-PCIE": {"float32": 14.0, "float16": 112.0, "memory": 900.0},
    "NVIDIA A100-SXM4-40GB": _A100 | {"memory": 1555.0},
    "NVIDIA A100-PCIE-40GB": _A100 | {"memory": 1555.0},
    "NVIDIA A100-SXM4-80GB": _A100 | {"memory": 2039.0},
    "NVIDIA A100 80GB PCIe": _A100 | {"memory": 1935.0},
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": {"float32": 378.0, "bfloat16": 756.0, "float16": 756.0, "memory": 2000.0},
    "NVIDIA H100 NVL": {"float32": 417.5, "bfloat16": 835.0, "float16": 835.0, "memory": 3900.0},
    "NVIDIA H200 NVL": {"float32": 418.0, "bfloat16": 836.0, "float16": 836.0, "memory": 4800.0},
    "NVIDIA H200": _H100 | {"memory": 4800.0},
}


def _promised(device: str, what: str) -> float | None:
    for name, rates in DATASHEET.items():
        if device.startswith(name):
            return rates.get(what)
    return None


def datasheet_flops(device: str, precision: str) -> float | None:
    """FLOP/s that the maker promises; None for what is not listed."""
    rate = _promised(device, precision)
    return rate and rate * 1e12


def datasheet_bytes(device: str) -> float | None:
    """Bytes a second that the maker promises of the memory; None for what is not listed."""
    rate = _promised(device, "memory")
    return rate and rate * 1e9


def machine() -> dict[str, Any]:
    """Device, cores, memory, versions, and the code by its commit and a digest."""
    device = jax.devices()[0]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "vemseg_jax": vemseg_jax.__version__,
        "commit": _commit(),
        "code": code_digest(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def code_digest() -> str:
    """Of package, configurations and the scripts that measure: other code is measured again."""
    package = Path(vemseg_jax.__file__).parent
    scripts = [path for path in HERE.glob("*.py") if path.name not in _OUTSIDE]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *(HERE.parent / "configs").glob("*.py"), *scripts]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    """The commit that is checked out, "-dirty" where files differ; empty without git."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of measurements."""
    many = len(values) > 1
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if many else [values[0]] * 3
    )
    return {"median": statistics.median(values), "low": low, "high": high, "n": len(values)}


def seconds(call: Callable[[], Any], *, repeats: int, warm: int = 1) -> list[float]:
    """Seconds of each of `repeats` calls, after `warm` ones; waits for the device each time."""
    times = []
    for _ in range(warm + repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times[warm:]


def host_peak_gib() -> float:
    """The most memory this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def first_line(error: BaseException) -> str:
    """What an exception says, in a line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def record(output: str | None, benchmark: str, rows: Sequence[dict], **settings: Any) -> None:
    """Writes one JSON file, whole or not at all; does nothing without a path."""
    if not output:
        return
    path = local_path(output, flag="--output")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": benchmark, "machine": machine(), "settings": settings}
    write_json(path, {**result, "rows": list(rows)})


def load_result(path: Path) -> dict[str, Any]:
    """What `record` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
