"""What the values of label files mean: structure, background, or nobody labelled it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vemseg_jax.data.store.volume import UNLABELLED
from vemseg_jax.errors import InputError

ANY_VALUE, OTHER_VALUES = "any", "others"
# Values of the label files that make up a structure, or every one above 0.
Values = tuple[int, ...] | str
# More values than these are instances, of which nobody wants a list.
MOST_VALUES, LISTED_VALUES = 64, 8
# So many values that nobody named are other structures.
MANY_VALUES = 3


@dataclass
class MaskRule:
    """Turns label values into masks, and counts what it finds.

    Attributes:
      name: of the structure.
      values: those that make it up; None for binary files, which hold 0 and one other value,
        the same in all of them.
      unlabelled: values of pixels that nobody labelled.
      background: values that are background besides 0, or OTHER_VALUES for all that have no other
        meaning.
      elsewhere: values that are background here because another structure of the same files has
        them, with its name.
      found: pixels of every value that has a meaning; OTHER_VALUES stands for those it covers,
        and ANY_VALUE.
      unnamed: of the values without one, pixels and where each was seen first. Of binary files,
        all but 0.
    """

    name: str
    values: Values | None
    unlabelled: tuple[int, ...] = ()
    background: Values = ()
    elsewhere: Mapping[int, str] = field(default_factory=dict)
    found: dict[int | str, int] = field(default_factory=dict)
    unnamed: dict[int, tuple[int, str]] = field(default_factory=dict)
    _doubtful_top: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def mask(self, plane: np.ndarray, where: object) -> np.ndarray:
        """`plane` `[h, w]` of any integer type to uint8; `where` is for messages.

        0 background, 1 structure, 255 not labelled. Values without a meaning are background, and
        `check` refuses them once all slices are read.

        Raises:
          InputError: far more values than there are structures.
        """
        counts: dict[int | str, int] = {}
        out = np.zeros(plane.shape, np.uint8)
        free = plane.size  # pixels that no value has taken yet

        def take(value: int | str, chosen: np.ndarray, result: int) -> None:
            nonlocal free
            counts[value] = int(np.count_nonzero(chosen))
            free -= counts[value]
            if result:
                np.bitwise_or(out, chosen.view(np.uint8) * np.uint8(result), out=out)

        dark, lost = self._background, self.unlabelled
        for value in lost:
            take(value, plane == value, UNLABELLED)
        for value in dark:
            take(value, plane == value, 0)
        if self.values == ANY_VALUE:
            chosen = plane > 0
            if any(v > 0 for v in (*dark, *lost)):
                chosen &= ~_is(plane, (*dark, *lost))
            take(ANY_VALUE, chosen, 1)
            self._look_at_top(plane)
        elif self.values is not None:
            for number in self.values:
                take(number, plane == number, 1)
        rest: dict[int, int] = {}
        if free and self.values is None:
            rest = self._binary(plane, out, free)
        elif free and self.background == OTHER_VALUES:
            counts[OTHER_VALUES] = free
        elif free:
            rest = _counted(plane[~_is(plane, self._named) & ~_any(plane, self.values)])
        self._note(counts, rest, str(where))
        return out

    @property
    def _background(self) -> tuple[int, ...]:
        given = self.background if isinstance(self.background, tuple) else ()
        return tuple(v for v in dict.fromkeys((0, *given, *self.elsewhere)) if v not in
                     self.unlabelled)  # fmt: skip

    @property
    def _named(self) -> tuple[int, ...]:
        own = self.values if isinstance(self.values, tuple) else ()
        return (*self._background, *self.unlabelled, *own)

    def _binary(self, plane: np.ndarray, out: np.ndarray, free: int) -> dict[int, int]:
        """Takes the largest value that is left as the structure; counts all that are left."""
        if any(v > 0 for v in self._named):
            plane = np.where(_is(plane, self._named), np.zeros((), plane.dtype), plane)
        value = int(plane.max())
        chosen = plane == value
        count = int(np.count_nonzero(chosen))
        if value > 0:
            out |= chosen.view(np.uint8)
            if count == free:
                return {value: count}
        return _counted(plane[~_is(plane, self._named)])

    def _look_at_top(self, plane: np.ndarray) -> None:
        """Whether the largest value of the type stands alone above instances: a mark, maybe."""
        if plane.dtype.kind not in "iu":
            return
        top = int(np.iinfo(plane.dtype).max)
        if top in self._named or not (plane == top).any():
            return
        below = plane[(plane > 0) & (plane < top)]
        if below.size and int(below.max()) < top - 1:
            self._doubtful_top = top

    def _note(self, counts: dict[int | str, int], rest: dict[int, int], where: str) -> None:
        with self._lock:
            for value, count in counts.items():
                self.found[value] = self.found.get(value, 0) + count
            for number, count in rest.items():
                before, first = self.unnamed.get(number, (0, where))
                self.unnamed[number] = (before + count, first)
            many = len(self.unnamed) > MOST_VALUES
        if many:
            raise InputError(
                f"{where}: more than {MOST_VALUES} values of {self.name}, such as"
                f" {', '.join(map(str, sorted(self.unnamed)[:4]))}; if they are instances, give"
                f" --label_values={self.name}=any, otherwise those of the structure and"
                f" --background_values={self.name}=others"
            )

    @property
    def structure(self) -> Values:
        """What was taken as the structure."""
        return tuple(self.unnamed) if self.values is None else self.values

    def doubt(self, source: object) -> str | None:
        """Why the values read cannot be used, with the flags to add; None where they can."""
        if not self.unnamed or (self.values is None and self._is_binary):
            return None
        positive = sorted(v for v in self.unnamed if v > 0)
        others = sorted(self.unnamed)
        start = f"{source}: label values {self._listed()} of {self.name};"
        if self.values is not None:
            own = self.values if isinstance(self.values, tuple) else ()
            mine = f"--label_values={self.name}={_joined(own, positive)} if they are {self.name}, "
            background, unlabelled = self._other_flags(others)
            return (
                f"{start} no flag says what they are: add {mine if positive else ''}{background} if"
                f" they are background, or {unlabelled} if nobody labelled these pixels (they are"
                " left out of training and scores)"
            )
        background, unlabelled = self._other_flags(
            [v for v in others if v not in positive[:1]] or others
        )
        flag = f"--label_values={self.name}"
        return (
            f"{start} binary labels hold 0 and one other value: say what each is, such as"
            f" {flag}={positive[0] if positive else 1} with {unlabelled} (pixels that nobody"
            f" labelled, left out of training and scores) or with {background}"
            + (f", or {flag}=any if all above 0 are {self.name}" if len(positive) > 1 else "")
        )

    def _other_flags(self, values: Sequence[int]) -> tuple[str, str]:
        """Flags that make these values background, or unlabelled."""
        given = self.background if isinstance(self.background, tuple) else ()
        many = self.values is not None and len(values) > MANY_VALUES
        return (
            f"--background_values={self.name}={OTHER_VALUES if many else _joined(given, values)}",
            f"--unlabelled_value={self.name}={_joined(self.unlabelled, values)}",
        )

    @property
    def _is_binary(self) -> bool:
        return len(self.unnamed) == 1 and min(self.unnamed) > 0

    def _listed(self) -> str:
        """`1 (27 % of the pixels), 255 (3 %, first in a.tif)`."""
        total = sum(self.found.values()) + sum(n for n, _ in self.unnamed.values())
        values, told = sorted(self.unnamed), ""
        texts: list[str] = []
        for value in values[:LISTED_VALUES]:
            count, first = self.unnamed[value]
            where = "" if first == told else f", first in {first}"
            of = " of the pixels" if not texts else ""
            texts.append(f"{value} ({100 * count / total:.3g} %{of}{where})")
            told = first
        more = f" and {len(values) - len(texts)} more" if len(values) > len(texts) else ""
        zero = "0, " if self.values is None and self.found.get(0) else ""
        return f"{zero}{', '.join(texts)}{more}"

    def meanings(self) -> str:
        """`value 1; background 0, 2 (nucleoli); not labelled 255`, of the values that were found.

        Call it once all slices are read.
        """
        own = self.structure
        texts = [f"value {'any above 0' if own == ANY_VALUE else '+'.join(map(str, own))}"]
        marks: dict[int | str, str] = {v: f"{v} ({name})" for v, name in self.elsewhere.items()}
        marked: tuple[int | str, ...] = (*self._background, OTHER_VALUES)
        dark = [v for v in marked if self.found.get(v)]
        if dark:
            texts.append(f"background {', '.join(str(marks.get(v, v)) for v in dark)}")
        lost = [v for v in self.unlabelled if self.found.get(v)]
        if lost:
            texts.append(f"not labelled {', '.join(map(str, lost))}")
        return "; ".join(texts)

    def warning(self) -> str | None:
        """Of values that may be a mark though a flag gives them a meaning."""
        if self._doubtful_top is None:
            return None
        return (
            f"{self.name}: value {self._doubtful_top}, the largest of its type, is taken as"
            f" structure as all others; if it marks what nobody labelled, give"
            f" --unlabelled_value={self.name}={self._doubtful_top}"
        )

    def record(self) -> list[int] | str:
        """What was taken as the structure, for the label's attributes."""
        own = self.structure
        return own if isinstance(own, str) else [int(v) for v in own]


def _is(plane: np.ndarray, values: Sequence[int]) -> np.ndarray:
    chosen = np.zeros(plane.shape, bool)
    for value in values:
        chosen |= plane == value
    return chosen


def _any(plane: np.ndarray, values: Values | None) -> np.ndarray:
    return plane > 0 if values == ANY_VALUE else np.zeros(plane.shape, bool)


def _counted(values: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return {int(v): int(n) for v, n in zip(found, counts, strict=True)}


def _joined(given: Sequence[int], more: Sequence[int]) -> str:
    """`1+2`; of many new ones the first."""
    text = "+".join(map(str, (*given, *more[:LISTED_VALUES])))
    return text if len(more) <= LISTED_VALUES else f"{text}+…"
