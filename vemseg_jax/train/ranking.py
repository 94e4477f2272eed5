"""What decides which checkpoint is the best."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Where a checkpoint's description holds the number that it is ranked by.
SCORE = "score"


def mean_score(dice: Mapping[str, float]) -> float:
    """Mean over structures, for ranking; a structure that no held-out slice shows counts 0."""
    values = [0.0 if math.isnan(value) else value for value in dice.values()]
    return float(np.mean(values)) if values else -math.inf


@dataclasses.dataclass(frozen=True)
class Score:
    """Of a validation.

    Attributes:
      dice: per structure; without those that it is undefined for, as JSON has no nan.
      value: what it is ranked by, `mean_score` of all structures; None before any validation.
    """

    dice: dict[str, float] = dataclasses.field(default_factory=dict)
    value: float | None = None

    @classmethod
    def of(cls, dice: Mapping[str, float]) -> "Score":
        """Of the validation Dice per structure, nan where it is undefined."""
        defined = {name: value for name, value in dice.items() if not math.isnan(value)}
        return cls(defined, mean_score(dice))

    def to_meta(self) -> dict[str, Any]:
        """What a checkpoint's description says of it."""
        return {"val_dice": self.dice, SCORE: self.value}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], structures: Sequence[str]) -> "Score":
        """The inverse of `to_meta`; earlier versions wrote `val_dice` alone.

        Those left out what was undefined, which counted 0. The latest checkpoint has no scores
        where no validation came before it; the best one always had a validation.
        """
        dice = dict(meta["val_dice"])
        if SCORE in meta:
            return cls(dice, meta[SCORE])
        return cls(dice, mean_score({name: dice.get(name, math.nan) for name in structures}))
