"""What a run still owes of a step at which it was stopped."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vemseg_jax.train.record import Step

# Where a checkpoint's description holds it.
OWED = "owed"


@dataclasses.dataclass(frozen=True)
class Owed:
    """Of a checkpoint between the steps at which something is due; else nothing is owed.

    Attributes:
      validation: was due at this step and left.
      unlogged: metrics of the steps since the last line of the log.
    """

    validation: bool = False
    unlogged: tuple[Step, ...] = ()

    def to_meta(self) -> dict[str, Any]:
        """As JSON values, with the types of the numbers: their means are to be the same."""
        if not self.validation and not self.unlogged:
            return {}
        steps = [
            {name: [np.asarray(v).dtype.name, np.asarray(v).item()] for name, v in step.items()}
            for step in self.unlogged
        ]
        return {OWED: {"validation": self.validation, "unlogged": steps}}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Owed":
        """The inverse of `to_meta`."""
        owed = meta.get(OWED, {})
        steps = tuple(
            {name: np.asarray(value, dtype) for name, (dtype, value) in step.items()}
            for step in owed.get("unlogged", ())
        )
        return cls(bool(owed.get("validation", False)), steps)
