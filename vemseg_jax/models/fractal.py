"""FracTAL attention, the unit of FracTAL ResNet, and the layers that CEECNet builds on.

Source: Diakogiannis, Waldner and Caccetta 2021, "Looking for change? Roll the dice and demand
attention", as used by Pagano et al. 2023, whose attention multiplies its two parts where the
original adds them and whose convolutions have biases.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models import layers
from vemseg_jax.resize import repeat2d
from vemseg_jax.tanimoto import fractal_tanimoto


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of one network share.

    Attributes:
      norm_groups: groups of GroupNorm; 0 for BatchNorm.
      attention_depth: depth of the fractal Tanimoto similarity.
      dtype: type of activations.
    """

    norm_groups: int
    attention_depth: int
    dtype: layers.Dtype = jnp.float32


def make_norm(style: Style, name: str | None = None) -> layers.BatchNorm | layers.GroupNorm:
    """The style's normalisation."""
    if not style.norm_groups:
        return layers.BatchNorm(dtype=style.dtype, name=name)
    return layers.GroupNorm(style.norm_groups, dtype=style.dtype, name=name)


class ConvNorm(nn.Module):
    """Convolution and normalisation: `[b, h, w, c] -> [b, h', w', features]`."""

    features: int
    style: Style
    kernel_size: int = 3
    stride: int = 1
    groups: int = 1

    def setup(self) -> None:
        """Both layers are attributes, so that several can be computed together."""
        self.conv2d = layers.Conv(
            self.features,
            self.kernel_size,
            stride=self.stride,
            groups=self.groups,
            dtype=self.style.dtype,
        )
        self.norm = make_norm(self.style)

    def __call__(self, x: jax.Array, *, train: bool, copies: int = 1) -> jax.Array:
        """Applies both; `copies` as in `layers.BatchNorm`."""
        return self.norm(self.conv2d(x), train=train, copies=copies)


def joined_conv_norm(convs: Sequence[ConvNorm], x: jax.Array, *, train: bool) -> jax.Array:
    """Layers of one map that differ in their weights alone, joined by channel.

    One wide convolution is quicker than several narrow ones, and compiles once.
    """
    y = layers.joined_conv([conv.conv2d for conv in convs], x)
    return layers.joined_norm([conv.norm for conv in convs], y, train=train)


class _JoinedConv(nn.Module):
    """1 x 1 convolution of maps joined by channel, each at its own size."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        channels = sum(x.shape[-1] for x in maps)
        init = layers.uniform_fan_in(channels)
        kernel = self.param("kernel", init, (1, 1, channels, self.features), jnp.float32)
        bias = self.param("bias", init, (self.features,), jnp.float32)
        height, width = max(x.shape[1] for x in maps), max(x.shape[2] for x in maps)
        total, start = bias.astype(self.dtype), 0
        for x in maps:
            part = kernel[0, 0, start : start + x.shape[-1]].astype(self.dtype)
            start += x.shape[-1]
            y = jnp.einsum("bhwc,cf->bhwf", x.astype(self.dtype), part)
            factors = (height // x.shape[1], width // x.shape[2])
            total = total + (y if factors == (1, 1) else repeat2d(y, factors))
        return total


class JoinedConvNorm(nn.Module):
    """1 x 1 convolution and normalisation of maps joined by channel.

    Maps smaller than the largest stand for their enlargement by repetition. A 1 x 1 convolution
    commutes with that, so they are convolved at their own size and only the sum is enlarged.
    """

    features: int
    style: Style

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """`maps: [b, h / k, w / k, c_i]` each with its own k -> `[b, h, w, features]`."""
        y = _JoinedConv(self.features, self.style.dtype, name="conv2d")(maps)
        return make_norm(self.style, "norm")(y, train=train)


class RelativeAttention(nn.Module):
    """FracTAL attention of one map to another: `[b, h, w, c] -> [b, h, w, features]`.

    With q, k, v = sigmoid(convolutions), the similarity of q and k over space weighs channels
    and their similarity over channels weighs pixels: norm(0.5 (w_channel v) (w_space v)).
    """

    features: int
    heads: int
    style: Style

    def setup(self) -> None:
        """The projections are attributes, so that several can be computed together."""
        self.query, self.key, self.value = (
            ConvNorm(self.features, self.style, groups=self.heads) for _ in range(3)
        )
        self.norm = make_norm(self.style)

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool) -> jax.Array:
        """The attention of projected maps, `[b, h, w, features]` in [0, 1]."""
        depth = self.style.attention_depth
        by_channel = fractal_tanimoto(q, k, axes=(1, 2), depth=depth)
        by_pixel = fractal_tanimoto(q, k, axes=-1, depth=depth)
        weighted = 0.5 * by_channel * by_pixel * jnp.square(v.astype(by_pixel.dtype))
        return self.norm(weighted, train=train)


def _project(convs: Sequence[ConvNorm], x: jax.Array, train: bool) -> list[jax.Array]:
    return jnp.split(nn.sigmoid(joined_conv_norm(convs, x, train=train)), len(convs), -1)


def attend_to_each_other(
    first: RelativeAttention,
    second: RelativeAttention,
    a: jax.Array,
    b: jax.Array,
    *,
    train: bool,
) -> tuple[jax.Array, jax.Array]:
    """The attention `first` of `a` to `b`, and `second` of `b` to `a`; maps of one shape."""
    q1, k2, v2 = _project([first.query, second.key, second.value], a, train)
    q2, k1, v1 = _project([second.query, first.key, first.value], b, train)
    return first.attend(q1, k1, v1, train=train), second.attend(q2, k2, v2, train=train)


class Attention(nn.Module):
    """FracTAL attention of a map to itself."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h, w, features]`."""
        att = RelativeAttention(self.features, self.heads, self.style, name="att")
        return att.attend(*_project([att.query, att.key, att.value], x, train), train=train)


def gate(module: nn.Module, name: str) -> jax.Array:
    """A learned factor of an attention, 0 at first: attention fades in."""
    return module.param(name, nn.initializers.zeros, (1,), jnp.float32)


class _PreActivationBlock(nn.Module):
    """Twice (norm, ReLU, grouped convolution); the first convolution has no bias."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number in (1, 2):
            x = nn.relu(make_norm(self.style, f"BN{number}")(x, train=train))
            x = layers.Conv(
                self.features,
                groups=self.heads,
                use_bias=number == 2,
                dtype=self.style.dtype,
                name=f"conv{number}",
            )(x)
        return x


class FractalResNetUnit(nn.Module):
    """(x + block(x)) (1 + gamma attention(x)), same shape."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, features]`, same shape out."""
        block = _PreActivationBlock(self.features, self.heads, self.style, name="block1")
        attention = Attention(self.features, self.heads, self.style, name="attn")
        gamma = gate(self, "gamma").astype(self.style.dtype)
        return (x + block(x, train=train)) * (1 + gamma * attention(x, train=train))
