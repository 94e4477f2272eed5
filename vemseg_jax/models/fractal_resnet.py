"""FracTAL ResNet: the encoder-decoder of `xnet` with residual units that attend."""

import dataclasses

from vemseg_jax.models import layers
from vemseg_jax.models.fractal import FractalResNetUnit
from vemseg_jax.models.xnet import XNet, XNetConfig, check


@dataclasses.dataclass(unsafe_hash=True)
class FractalResNetConfig(XNetConfig):
    """FracTAL ResNet; 406,843 parameters (427,003 with `up_heads="own"`)."""


def make_fractal_resnet(config: FractalResNetConfig, dtype: layers.Dtype) -> XNet:
    """FracTAL ResNet."""
    check(config, smallest_share=1)
    return XNet(config=config, unit=FractalResNetUnit, dtype=dtype)
