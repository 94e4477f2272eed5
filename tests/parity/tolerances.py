"""How far the project may be from the golden numbers, and whose word that is.

README and DETAILS are the pages beside the golden files. They ask for 5 to 10 times what torch's
own float32 strays, still far below what a mistake does.
"""

from collections.abc import Mapping

import numpy as np

# README. Most of torch's float32: 8e-6, in CPS 1.5e-5.
PROBABILITY = 3e-5
# README: networks joined by attention (upFuse) and CEECNets with BatchNorm.
PROBABILITY_DEEP = 1e-4
# README: the one or, where that is more, the other as a share of the largest logit.
LOGITS, LOGITS_SHARE = 1e-4, 1e-5
# README.
SENFORMER_LOGITS, SENFORMER_LOGITS_TRAINED = 6e-5, 1e-4
# DETAILS: the sum of four softmaxes, small and enlarged.
ENSEMBLE = 2e-5
# README: running statistics; the second of UNet++ of depth 5 and of CEECNets with BatchNorm.
STATISTICS, STATISTICS_DEEP = 2e-6, 5e-5
# README: all losses, those of CPS and of Tanimoto at any depth too.
LOSS = 1e-6
# README: of a gradient's norm, and of each entry of one in full: a share of the value (of the
# largest entry) and one of the norm over all tensors.
NORM_SHARES, GRADIENT_SHARES = (3e-3, 1e-4), (5e-3, 2e-4)
# A ReLU or maximum whose input lies within float32 rounding of a tie may fall to the other side
# and move the gradients behind it, on some processors and not on others. Gradients outside their
# tolerance must then still be near, so many times the tolerance, and right in float64.
TIES = 10
# DETAILS, "port run in float64": outputs, statistics and losses; gradients as shares as above. The
# share of the global norm is for biases before a BatchNorm, whose gradient is noise.
DOUBLE, DOUBLE_SHARES = 2e-6, (1e-5, 1e-7)
# Gradients of a loss by itself: no page has a figure. torch's float32 strays 7e-7 of the largest
# entry; ours 2e-7.
LOSS_GRADIENT_SHARE = 1e-5
# A perfect prediction cancels terms of 1e-3 in the gradient of Dice: what is left is rounding.
LOSS_GRADIENT_FLOOR = 2e-10
# Attention's similarities, in (0, 1]: no figure. torch strays 3e-7.
SIMILARITY = 2e-6
# README. Before scaling, a share of the largest distance.
DISTANCE = 1e-6
# No figure: bilinear resizing of 0..1 (torch strays 8e-8), and of that over a deviation of 0.1.
RESIZED, NORMALIZED = 1e-6, 2e-6
# No figure: mean and deviation are stored in float64, ours are sums of float64.
MEAN_STD = 1e-7
# No figure: Dice of a stack is a quotient of whole numbers, stored as float32.
DICE = 1e-6
# No figure: schedules are float64 on both sides; in the optimizer, float32 of the base rate.
SCHEDULE, SCHEDULE_FLOAT32 = 1e-12, 1e-6
# DETAILS: weights after a step of Adam at 1e-3, where the gradient's sign is more than rounding.
UPDATED = 1e-4
# No figure: Adam's moments are the gradient (as is) and its square, which strays twice as far.
MOMENT_FACTORS = {"adam_exp_avg": 1, "adam_exp_avg_sq": 2}
# DETAILS: two-sample Kolmogorov-Smirnov of 10,000 draws each is 0.023 at the 1 % level; of 100,000
# of ours it is exceeded once in 8,000 times.
BOXES_KS = 0.023
# DETAILS: the mean area of boxes; it has 0.03 for the mean of the log aspect.
BOXES_AREA, BOXES_LOG_ASPECT = 0.003, 0.03
# No figure: 64 cells, each of 10,000 draws with a standard error of 0.005.
BOXES_COVERAGE = 0.03


def probability(reference: Mapping) -> float:
    """For probabilities of a network in the reference's parameter names."""
    deep = reference.get("upFuse") or reference.get("norm_type") == "BatchNorm"
    return PROBABILITY_DEEP if deep else PROBABILITY


def statistics(reference: Mapping) -> float:
    """For BatchNorm's running statistics."""
    # Depth 4 has no figure; its statistics come from maps of twice the size only.
    deep = reference.get("norm_type") == "BatchNorm" or reference.get("encoder_depth", 0) > 3
    return STATISTICS_DEEP if deep else STATISTICS


def output(name: str, reference: Mapping, expected: np.ndarray, *, trained: bool) -> float:
    """For one output of a network; `trained`: of the pass in train mode."""
    if name in ("logits", "tanh"):
        return max(LOGITS, LOGITS_SHARE * float(np.abs(expected).max()))
    if name.startswith("logits_"):
        return SENFORMER_LOGITS_TRAINED if trained else SENFORMER_LOGITS
    if name in ("ensemble", "forward_test"):
        return ENSEMBLE
    return probability(reference)


def share(shares: tuple[float, float], value: float, whole: float) -> float:
    """A share of the value (or of a tensor's largest entry) and one of the global norm."""
    return shares[0] * value + shares[1] * whole
