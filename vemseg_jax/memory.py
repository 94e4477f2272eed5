"""How much memory there is to hold slices."""

import os

import jax


def device_memory() -> int:
    """Bytes of memory of the first device; of the host where the device is a CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
