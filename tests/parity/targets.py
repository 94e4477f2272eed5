"""Golden boundary and distance targets."""

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from tests.parity import tolerances
from tests.parity.result import Result, compare
from vemseg_jax.data.crops.targets import boundary_target, distance_target, squared_distance

Golden = Mapping[str, np.ndarray]


def check_targets(golden: Golden) -> Iterator[Result]:
    """Boundary pixel for pixel, distance before and after scaling."""
    for case in [key.removesuffix("/mask") for key in golden if key.endswith("/mask")]:
        mask = golden[f"{case}/mask"]
        batch = jnp.asarray(mask)[None, ..., None]
        boundary = np.asarray(boundary_target(batch))[0, ..., 0]
        yield compare(f"{case}/boundary", boundary, golden[f"{case}/boundary"], 0)
        expected, raw = golden[f"{case}/distance"], golden[f"{case}/distance_raw"]
        if mask.all():
            # The reference's own value is noise here.
            expected, raw = np.zeros_like(expected), np.zeros_like(raw)
        found = np.sqrt(np.asarray(squared_distance(jnp.asarray(mask))).astype(np.float64))
        tolerance = tolerances.DISTANCE * max(1.0, np.abs(raw).max())
        yield compare(f"{case}/distance_raw", found, raw, tolerance)
        distance = np.asarray(distance_target(batch))[0, ..., 0]
        yield compare(f"{case}/distance", distance, expected, tolerances.DISTANCE)
