"""Does the training scale suit the volume, and do crops fit its slices?"""

from vemseg_jax.data.check.report import WARNING, Finding, percent
from vemseg_jax.data.store.volume import FULL, TRAINING, Volume

PADDED_SHARE = 0.25
# Pixels of more nanometres at training scale blur nucleoli of a micrometre to a few pixels; the
# study trained at 16.
COARSE_NM = 100.0
# Slices with fewer pixels along a side leave little to learn from.
SMALL_SIDE = 128


def check_scale(volume: Volume, crop_size: int) -> list[Finding]:
    """Findings on the training scale and on crops of this size, pixels at training scale.

    Where the conversion made a 4x smaller training scale of data that was small or coarse
    already, its full resolution is what to train on, and no other crop helps.
    """
    h, w = volume.plane_shape(TRAINING)
    pixel = max(volume.voxel_size[1:]) * volume.downsample
    if volume.downsample != 1 and (pixel > COARSE_NM or min(h, w) < SMALL_SIDE):
        full_h, full_w = volume.plane_shape(FULL)
        text = (
            f"the training scale is {volume.downsample} times smaller than the data: slices of"
            f" {h} x {w} pixels of {pixel:.4g} nm"
        )
        own = max(volume.voxel_size[1:])
        action = (
            f"convert again with --downsample=1, to train on slices of {full_h} x {full_w} pixels"
            f" of {own:.4g} nm"
        )
        if _padded(full_h, full_w, crop_size) > PADDED_SHARE:
            action += f", with --config.data.crop_size={_fitting(full_h, full_w)}"
        return [Finding(WARNING, "downsample", text, action)]
    padded = _padded(h, w, crop_size)
    if padded > PADDED_SHARE:
        text = (
            f"slices of {h} x {w} are smaller than a crop of {crop_size}: {percent(padded)} of it"
            " would be their reflection"
        )
        action = f"train with --config.data.crop_size={_fitting(h, w)}"
        return [Finding(WARNING, "crop_size", text, action)]
    return []


def _padded(h: int, w: int, crop: int) -> float:
    """Share of a crop that lies beyond the slice."""
    return 1 - min(h, crop) * min(w, crop) / crop**2


def _fitting(h: int, w: int) -> int:
    """The largest crop in a slice with a side that networks can halve four times."""
    return max(16, min(h, w) // 16 * 16)
