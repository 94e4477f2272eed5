"""The encoder-decoder of FracTAL ResNet and CEECNet, which differ in its units."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.errors import InputError
from vemseg_jax.models import layers
from vemseg_jax.models.ceecnet_units import Fusion
from vemseg_jax.models.fractal import ConvNorm, JoinedConvNorm, Style
from vemseg_jax.models.multitask_head import PSP_DEPTH, MultitaskHead
from vemseg_jax.models.psp import PSPPooling
from vemseg_jax.resize import upsample2x

NORMS = ("group", "batch")
UP_HEADS = ("deeper", "own")


@dataclasses.dataclass(unsafe_hash=True)
class XNetConfig(ModelConfig):
    """What the three networks can vary in.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels.
      exclusive: the classes exclude each other, background first: softmax, as the reference does
        with more than one class. Otherwise each is a sigmoid of its own.
      filters: channels of the first level; each level has twice those of the one above.
      depth: number of levels.
      psp_depth: pooling sizes of the pyramid at the bottom.
      norm: "group" or "batch".
      norm_groups: groups of "group".
      heads: groups of the convolutions and attentions at the first level, twice as many each
        level down.
      up_heads: heads of a level on the way up: "deeper" takes the number of the level below it
        (the reference's first network file), "own" its own (its second).
      fuse_up: join levels on the way up by attention instead of a convolution (`upFuse`).
      attention_depth: depth of the fractal Tanimoto similarity.
    """

    exclusive: bool = False
    filters: int = 16
    depth: int = 4
    psp_depth: int = 4
    norm: str = "group"
    norm_groups: int = 4
    heads: int = 2
    up_heads: str = "deeper"
    fuse_up: bool = False
    attention_depth: int = 5


def _up_heads(config: XNetConfig, level: int) -> int:
    """Heads on the way up, at the level that is `level` above the first (0)."""
    return config.heads * 2 ** (level + (config.up_heads == "deeper"))


class _Combine(nn.Module):
    """Joins the deeper map, repeated to twice its size, with the skipped one."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, deep: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        # Convolution and norm of single pixels commute with repeating them.
        up = _NormedUp(self.features, self.style, name="up")(deep, train=train)
        join = JoinedConvNorm(self.features, self.style, name="conv_normed")
        return join([nn.relu(up), skip], train=train)


class _NormedUp(nn.Module):
    features: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = ConvNorm(self.features, self.style, kernel_size=1, name="convup_normed")
        return conv(x, train=train, copies=4)


class _CombineByFusion(nn.Module):
    """Joins the deeper map, enlarged, with the skipped one by attention."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, deep: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        conv = ConvNorm(self.features, self.style, groups=self.heads, name="conv1")
        up = nn.relu(conv(upsample2x(deep), train=train))
        return Fusion(self.features, self.heads, self.style, name="conv3")(up, skip, train=train)


class _Down(nn.Module):
    """Halves the map and doubles its channels."""

    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = ConvNorm(2 * x.shape[-1], self.style, stride=2, name="convdn")
        return conv(x, train=train)


class _Features(nn.Module):
    """Encoder and decoder; returns its last and its first map."""

    config: XNetConfig
    unit: Callable[..., nn.Module]
    style: Style

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        config, style = self.config, self.style
        first = ConvNorm(config.filters, style, kernel_size=1, name="conv_first")
        x = first_map = first(image, train=train)
        skips = []
        for level in range(config.depth):
            if level:
                skips.append(x)
                x = _Down(style, name=f"pools_{level - 1}")(x, train=train)
            heads = config.heads * 2**level
            unit = self.unit(x.shape[-1], heads, style, name=f"convs_dn_{level}")
            x = unit(x, train=train)
        psp = PSPPooling(x.shape[-1], config.psp_depth, style, name="middle")
        x = nn.relu(psp(x, train=train))
        for step, level in enumerate(reversed(range(config.depth - 1))):
            heads, features = _up_heads(config, level), config.filters * 2**level
            combine = (
                _CombineByFusion(features, heads, style, name=f"UpCombs_{step}")
                if config.fuse_up
                else _Combine(features, style, name=f"UpCombs_{step}")
            )
            x = combine(x, skips.pop(), train=train)
            x = self.unit(features, heads, style, name=f"convs_up_{step}")(x, train=train)
        return x, first_map


class XNet(nn.Module):
    """What `FracTALResNet` and `CEECNetV1`, `CEECNetV2` share: all but their unit.

    Source: Diakogiannis et al. 2021, as used by Pagano et al. 2023.
    """

    config: XNetConfig
    unit: Callable[..., nn.Module]
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Segments normalised images.

        Args:
          image: `[b, h, w, in_channels]`; sizes that are not multiples of `size_multiple(config)`
            are padded by repeating the edge and cropped again (the reference refuses them).
          train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
          `prob`, `logits`, `boundary` and `distance`, `[b, h, w, num_classes]`, float32.
        """
        config, (height, width) = self.config, image.shape[1:3]
        groups = config.norm_groups if config.norm == "group" else 0
        style = Style(groups, config.attention_depth, self.dtype)
        x = layers.pad_to_multiple(image, size_multiple(config))
        last, first = _Features(config, self.unit, style, name="features")(x, train=train)
        head = MultitaskHead(
            config.filters, config.num_classes, config.exclusive, style, name="head"
        )
        outputs = head(first, last, train=train)
        return {name: value[:, :height, :width] for name, value in outputs.items()}


def size_multiple(config: XNetConfig) -> int:
    """What height and width are padded to multiples of: 64 at depth 4, 256 at depth 6."""
    bottom = max(config.psp_depth - 1, 1)  # the units halve the deepest map once
    return max(2 ** (config.depth - 1 + bottom), 2 ** (PSP_DEPTH - 1))


def check(config: XNetConfig, *, smallest_share: int) -> None:
    """Refuses numbers that clash.

    Args:
      config: of the network.
      smallest_share: channels of a unit over those of its narrowest convolution.

    Raises:
      InputError: names the option, its value, and what is possible.
    """
    choices = (("norm", NORMS), ("up_heads", UP_HEADS))
    for name, allowed in choices:
        if getattr(config, name) not in allowed:
            raise InputError(
                f"--config.model.{name} is {getattr(config, name)!r}; "
                f"it must be one of {', '.join(allowed)}"
            )
    for name in ("filters", "depth", "psp_depth", "heads", "norm_groups", "num_classes"):
        if getattr(config, name) < 1:
            raise InputError(
                f"--config.model.{name} is {getattr(config, name)}; it must be at least 1"
            )
    if config.attention_depth < 0:
        raise InputError(
            f"--config.model.attention_depth is {config.attention_depth}; it must be at least 0"
        )
    if config.exclusive and config.num_classes < 2:
        raise InputError(
            "--config.model.exclusive needs --config.model.num_classes of at least 2 "
            f"(background first), found {config.num_classes}"
        )
    levels = [(f"level {n}", n, config.heads * 2**n) for n in range(config.depth)]
    levels += [
        (f"level {n} on the way up", n, _up_heads(config, n)) for n in range(config.depth - 1)
    ]
    for where, level, heads in levels:
        channels, least = config.filters * 2**level, config.filters * 2**level / smallest_share
        if least % heads:
            raise InputError(
                f"{where} has {channels} channels, {least:g} in its narrowest convolution, which "
                f"{heads} heads cannot share; change --config.model.filters ({config.filters}) "
                f"or --config.model.heads ({config.heads})"
            )
    least = config.filters / smallest_share
    if config.norm == "group" and least % config.norm_groups:
        raise InputError(
            f"{least:g} channels, the narrowest map of --config.model.filters={config.filters}, "
            f"do not divide into --config.model.norm_groups={config.norm_groups}"
        )
