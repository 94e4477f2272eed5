"""FracTAL ResNet: the encoder-decoder of `xnet` with residual units that attend."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn

from vemseg_jax.models import layers
from vemseg_jax.models.fractal import FractalResNetUnit
from vemseg_jax.models.xnet import XNet, XNetConfig, check


@dataclasses.dataclass(unsafe_hash=True)
class FractalResNetConfig(XNetConfig):
    """FracTAL ResNet; 406,843 parameters (427,003 with `up_heads="own"`)."""


class FracTALResNet(XNet):
    """FracTAL ResNet with the multitask head: mask, boundary and distance.

    Source: Diakogiannis et al. 2021, as used by Pagano et al. 2023. Input and outputs as in
    `XNet.__call__`: `[b, h, w, in_channels]` to `prob`, `logits`, `boundary` and `distance`,
    `[b, h, w, num_classes]`.
    """

    config: FractalResNetConfig
    unit: Callable[..., nn.Module] = FractalResNetUnit


def make_fractal_resnet(config: FractalResNetConfig, dtype: layers.Dtype) -> FracTALResNet:
    """FracTAL ResNet."""
    check(config, smallest_share=1)
    return FracTALResNet(config=config, dtype=dtype)
