"""Colours of labels: a structure and its prediction are told apart, in any viewer."""

import zlib
from collections.abc import Iterable

import numpy as np
from skimage.color import rgb2lab

from vemseg_jax.data.store.label_names import structure_of

Rgb = tuple[int, int, int]
# Drawn and predicted, of unlike hues, also for the colour-blind; the first two are those of the
# usual structures, others have one of the rest by their name.
PAIRS: tuple[tuple[Rgb, Rgb], ...] = (
    ((0, 114, 178), (224, 16, 156)),
    ((230, 159, 0), (0, 158, 115)),
    ((86, 180, 233), (213, 94, 0)),
    ((240, 228, 66), (120, 60, 200)),
    ((150, 220, 90), (170, 20, 40)),
)
_USUAL = ("nuclei", "nucleoli")
# Two colours that lie nearer in CIELAB look alike, as two blues do.
ALIKE = 35.0


def colour_of(name: str) -> Rgb:
    """Red, green and blue of a label, by its name alone."""
    structure = structure_of(name)
    if structure in _USUAL:
        pair = PAIRS[_USUAL.index(structure)]
    else:
        rest = PAIRS[len(_USUAL) :]
        pair = rest[zlib.crc32(structure.encode()) % len(rest)]
    return pair[structure != name]


def unlike(colour: Rgb, taken: Iterable[Rgb]) -> Rgb:
    """The colour itself, or the one of `PAIRS` furthest from all that are taken if one is like it.

    Nearness is counted in CIELAB, as the eye sees it.
    """
    others = list(taken)
    if not others or _nearest(colour, others) >= ALIKE:
        return colour
    return max((each for pair in PAIRS for each in pair), key=lambda each: _nearest(each, others))


def _nearest(colour: Rgb, others: Iterable[Rgb]) -> float:
    lab = rgb2lab(np.array([colour, *others], np.uint8)[None])[0]
    return float(np.linalg.norm(lab[1:] - lab[0], axis=-1).min())
