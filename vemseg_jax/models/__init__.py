"""Networks as Flax Linen modules: `create("resunet", num_classes=2)`, or the classes themselves.

Every network is called alike, `network.apply(variables, image, train=False)`:

    image: `[b, h, w, in_channels]` float32, normalised grey values (mean 0, deviation 1).
    train: whether BatchNorm uses the statistics of this batch.
    returns: a dict with `prob` in [0, 1] and `logits`, both `[b, h, w, num_classes]` float32, and
      what else the network predicts; the docstring of its class says what.

The names in `__all__` are stable, and are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vemseg_jax.models.ceecnet import (
        CEECNetV1,
        CEECNetV1Config,
        CEECNetV2,
        CEECNetV2Config,
    )
    from vemseg_jax.models.fractal_resnet import FracTALResNet, FractalResNetConfig
    from vemseg_jax.models.registry import create, names
    from vemseg_jax.models.resunet import ResUNet, ResUNetConfig
    from vemseg_jax.models.senformer import SenFormer, SenFormerConfig
    from vemseg_jax.models.smp_unet import SmpUNet, SmpUNetConfig
    from vemseg_jax.models.unet import SmallUNetConfig, UNet, UNetConfig
    from vemseg_jax.models.unetplusplus import UNetPlusPlus, UNetPlusPlusConfig

__all__ = [
    "CEECNetV1",
    "CEECNetV1Config",
    "CEECNetV2",
    "CEECNetV2Config",
    "FracTALResNet",
    "FractalResNetConfig",
    "ResUNet",
    "ResUNetConfig",
    "SenFormer",
    "SenFormerConfig",
    "SmallUNetConfig",
    "SmpUNet",
    "SmpUNetConfig",
    "UNet",
    "UNetConfig",
    "UNetPlusPlus",
    "UNetPlusPlusConfig",
    "create",
    "names",
]

_HOMES = {
    "CEECNetV1": "ceecnet",
    "CEECNetV2": "ceecnet",
    "FracTALResNet": "fractal_resnet",
    "FractalResNet": "fractal_resnet",
    "ResUNet": "resunet",
    "SenFormer": "senformer",
    "SmallUNet": "unet",
    "SmpUNet": "smp_unet",
    "UNet": "unet",
    "UNetPlusPlus": "unetplusplus",
    "create": "registry",
    "names": "registry",
}


if not TYPE_CHECKING:  # a name that is not there is found by type checkers too

    def __getattr__(name: str) -> Any:
        """A name of `__all__`, loaded as it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = _HOMES[name.removesuffix("Config")]
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
