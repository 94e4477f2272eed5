"""Every network by name: its configuration and how it is built."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig, plain
from vemseg_jax.errors import InputError
from vemseg_jax.models import (
    ceecnet,
    fractal_resnet,
    resunet,
    senformer,
    smp_unet,
    unet,
    unetplusplus,
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered network.

    Attributes:
      config: its configuration dataclass.
      make: builds it from a configuration and the type of activations.
      local: see `is_local`.
    """

    config: type[ModelConfig]
    make: Callable[[Any, Any], nn.Module]
    local: bool = False


MODELS: Mapping[str, Entry] = {
    "small_unet": Entry(unet.SmallUNetConfig, unet.make_unet, local=True),
    "unet": Entry(unet.UNetConfig, unet.make_unet, local=True),
    "resunet": Entry(resunet.ResUNetConfig, resunet.make_resunet, local=True),
    "smp_unet": Entry(smp_unet.SmpUNetConfig, smp_unet.make_smp_unet, local=True),
    "unetplusplus": Entry(
        unetplusplus.UNetPlusPlusConfig, unetplusplus.make_unetplusplus, local=True
    ),
    "fractal_resnet": Entry(fractal_resnet.FractalResNetConfig, fractal_resnet.make_fractal_resnet),
    "ceecnet_v1": Entry(ceecnet.CEECNetV1Config, ceecnet.make_ceecnet_v1),
    "ceecnet_v2": Entry(ceecnet.CEECNetV2Config, ceecnet.make_ceecnet_v2),
    "senformer": Entry(senformer.SenFormerConfig, senformer.make_senformer),
}


def model_name(config: ModelConfig) -> str:
    """The registered name of a configuration's network."""
    for name, entry in MODELS.items():
        if entry.config is type(config):
            return name
    raise InputError(
        f"model configuration of type {type(config).__name__}; choose from: "
        + ", ".join(entry.config.__name__ for entry in MODELS.values())
    )


def model_config(name: str, **options: Any) -> ModelConfig:
    """The configuration of the network `name`, with `options` over its defaults.

    Raises:
      InputError: unknown name or option; the message lists the choices.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose from: {', '.join(sorted(MODELS))}")
    known = {field.name for field in dataclasses.fields(MODELS[name].config)}
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"model {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"choose from: {', '.join(sorted(known))}"
        )
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return MODELS[name].config(**options)


def is_local(config: ModelConfig) -> bool:
    """Whether a pixel's result depends on its neighbourhood alone, not on the extent of the input.

    The U-Nets are local. The other networks are not: their attention and pooling span the input.
    """
    return MODELS[model_name(config)].local


def model_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as plain values, `name` included, for JSON."""
    return {"name": model_name(config), **dataclasses.asdict(config)}


def defaults(values: Any) -> dict[str, Any]:
    """The default configuration, as plain values, of the network that `values` describes.

    Empty where it is of no network that is known here.
    """
    entry = MODELS.get(str(values.get("name"))) if isinstance(values, Mapping) else None
    return plain(entry.config()) if entry else {}


def model_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `model_to_dict`."""
    return model_config(**values)


def create_model(config: ModelConfig, *, dtype: Any = jnp.float32) -> nn.Module:
    """Builds the network of a configuration.

    Args:
      config: one of the registered configuration dataclasses.
      dtype: the type of activations and products; parameters and statistics stay float32.

    Returns:
      A Linen module: `module.apply(variables, image, train=bool)` with `image: [b, h, w, c]`
      gives a dict with `prob` and `logits`, `[b, h, w, num_classes]`, and any extra heads.
    """
    # A copy of its own: flax hashes modules, and configurations can be edited.
    return MODELS[model_name(config)].make(dataclasses.replace(config), dtype)


def names() -> list[str]:
    """The names of all networks, for `create`, sorted."""
    return sorted(MODELS)


def create(name: str, *, dtype: Any = jnp.float32, **options: Any) -> nn.Module:
    """Builds a network by its name, such as `create("resunet", num_classes=2)`.

    Args:
      name: one of `names()`.
      dtype: the type of activations and products; parameters and statistics stay float32.
      **options: over the defaults of the network's configuration, such as `in_channels`,
        `num_classes` or `filters`; the attributes of its configuration class.

    Returns:
      As `create_model`.

    Raises:
      InputError: unknown name or option, with the choices; options that clash.
    """
    return create_model(model_config(name, **options), dtype=dtype)
