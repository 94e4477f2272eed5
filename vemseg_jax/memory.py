"""How much memory there is for slices, network and activations."""

import os
from pathlib import Path

import jax

# Of the device's memory, for slices unless the configuration says otherwise; the rest is the
# network's and its activations'.
SLICE_SHARE = 0.25
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
# Files of a control group, version 2 and version 1: limit, use, and the line of memory.stat that
# counts file pages, which are used but given up on demand.
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def device_memory() -> int:
    """Bytes that the first device has for this program.

    An accelerator says what its allocator may take. A CPU, and a device that does not say, has
    the memory that the host has available.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = int(stats.get("bytes_limit", 0))
    return limit or host_memory()


def host_memory(*, meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Bytes that the host has available, within the limits of the container.

    Args:
      meminfo: the kernel's table; where it is not there, all memory of the host counts.
      cgroup: where the control group of this process is mounted.
    """
    if meminfo.exists():
        available = _counters(meminfo)["MemAvailable:"] * 1024
    else:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for names in _CGROUP_FILES:
        limit, used, stat = (cgroup / name for name in names[:3])
        if limit.exists() and used.exists() and stat.exists():
            text = limit.read_text().strip()
            if text != "max":
                reclaimable = _counters(stat).get(names[3], 0)
                room = int(text) - int(used.read_text()) + reclaimable
                available = min(available, max(room, 0))
    return available


def _counters(path: Path) -> dict[str, int]:
    """`name number ...` lines as a dict."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
