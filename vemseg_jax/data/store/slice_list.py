"""Slice numbers as text, for messages."""

import itertools
from collections.abc import Iterable

PRINTED_RUNS = 8


def slice_list(slices: Iterable[int]) -> str:
    """`0-4, 7, 9` of slice numbers; of a long list its beginning and how many there are."""
    zs = sorted(set(slices))
    groups = itertools.groupby(enumerate(zs), key=lambda item: item[1] - item[0])
    runs = [[z for _, z in group] for _, group in groups]
    texts = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
    if len(texts) <= PRINTED_RUNS:
        return ", ".join(texts)
    return f"{', '.join(texts[: PRINTED_RUNS - 1])}, … {texts[-1]} ({len(zs)} slices)"
