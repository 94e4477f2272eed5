"""What to measure and how."""

import dataclasses
import math

from vemseg_jax.errors import InputError

DROP, FLAG = "drop", "flag"
MESH_FORMATS = ("ply", "obj")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure and how.

    Attributes:
      nuclei, nucleoli: names of label images; without nucleoli only nuclei are measured.
      level: "training" or "full"; None takes the training scale where all labels have it.
      z_range: slices, half-open; None takes all, which must follow each other.
      connectivity: 6, 18 or 26 neighbours of a voxel belong to the same object.
      min_nucleus_um3, min_nucleolus_um3: smaller objects are left out, µm³.
      outside: "drop" leaves out nucleoli with less than half of their voxels in one nucleus,
        "flag" lists them without a nucleus.
      meshes: "ply", "obj" or None.
      memory_bytes: for slabs and shapes.
    """

    nuclei: str
    nucleoli: str | None = None
    level: str | None = None
    z_range: tuple[int, int] | None = None
    connectivity: int = 26
    min_nucleus_um3: float = 1.0
    min_nucleolus_um3: float = 0.01
    outside: str = DROP
    meshes: str | None = None
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for flag in ("min_nucleus_um3", "min_nucleolus_um3"):
            value = getattr(self, flag)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"--{flag}={value}: give a volume in µm³, 0 or more")
        if self.memory_bytes <= 0:
            raise InputError(f"memory budget of {self.memory_bytes} bytes; give a positive one")
