"""Do labels fit the images they are paired with?"""

from collections.abc import Mapping

import numpy as np

from vemseg_jax.data.check.report import WARNING, Finding
from vemseg_jax.data.convert.pairing_fit import MIRROR_GAIN, MIRRORS, PairingFit


def check_fit(
    name: str, images: Mapping[int, np.ndarray], masks: Mapping[int, np.ndarray]
) -> tuple[float | None, list[Finding]]:
    """How well labels fit (None where that cannot be told) and findings on their pairing.

    Args:
      name: of the structure.
      images, masks: see `PairingFit`.
    """
    fitted = PairingFit(images, masks)
    if not fitted.enough:
        return None, []
    fit = fitted.fit()
    mirrored = {how: fitted.fit(how) for how in MIRRORS}
    how = max(mirrored, key=lambda key: mirrored[key])
    if mirrored[how] - fit > MIRROR_GAIN:
        text = f"labels of {name} fit the images better when they are mirrored {how}"
        text += f" (correlation {mirrored[how]:.2f} against {fit:.2f})"
        action = "compare images and label files in a viewer, mirror the labels and convert again"
        return fit, [Finding(WARNING, "mirrored_labels", text, action, fitted.slices)]
    pairs = fitted.exchanged()
    if not pairs:
        return fit, []
    listed = ", ".join(f"{a} and {b}" for a, b in pairs)
    text = f"labels of {name} fit the images better when those of slices {listed} are exchanged"
    action = "compare label files and slices in a viewer; pair them with --labels_csv if need be"
    slices = tuple(sorted(z for pair in pairs for z in pair))
    return fit, [Finding(WARNING, "exchanged_labels", text, action, slices)]
