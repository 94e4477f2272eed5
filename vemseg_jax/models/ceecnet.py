"""CEECNet, V1 and V2, which differ in the unit that they repeat."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from vemseg_jax.models import layers
from vemseg_jax.models.ceecnet_units import CEECUnit
from vemseg_jax.models.xnet import XNet, XNetConfig, check

# The narrowest convolution of a unit has a quarter of its channels.
SMALLEST_SHARE = 4


@dataclasses.dataclass(unsafe_hash=True)
class CEECNetV1Config(XNetConfig):
    """CEECNet with the first unit; 741,309 parameters (776,841 with `up_heads="own"`)."""


@dataclasses.dataclass(unsafe_hash=True)
class CEECNetV2Config(XNetConfig):
    """CEECNet with the second unit; 1,189,095 parameters (1,237,731 with `up_heads="own"`)."""


def _unit_v1(*arguments: Any, name: str) -> CEECUnit:
    return CEECUnit(1, *arguments, name=name)


def _unit_v2(*arguments: Any, name: str) -> CEECUnit:
    return CEECUnit(2, *arguments, name=name)


class CEECNetV1(XNet):
    """CEECNet with the first unit; input and outputs as those of `FracTALResNet`."""

    config: CEECNetV1Config
    unit: Callable[..., nn.Module] = _unit_v1


class CEECNetV2(XNet):
    """CEECNet with the second unit; input and outputs as those of `FracTALResNet`."""

    config: CEECNetV2Config
    unit: Callable[..., nn.Module] = _unit_v2


def make_ceecnet_v1(config: CEECNetV1Config, dtype: layers.Dtype) -> CEECNetV1:
    """CEECNet V1."""
    check(config, smallest_share=SMALLEST_SHARE)
    return CEECNetV1(config=config, dtype=dtype)


def make_ceecnet_v2(config: CEECNetV2Config, dtype: layers.Dtype) -> CEECNetV2:
    """CEECNet V2."""
    check(config, smallest_share=SMALLEST_SHARE)
    return CEECNetV2(config=config, dtype=dtype)
