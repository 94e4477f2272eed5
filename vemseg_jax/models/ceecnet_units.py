"""The two units of CEECNet: compress-expand beside expand-compress, joined by attention.

Source: Diakogiannis et al. 2021, as used by Pagano et al. 2023. Every unit keeps the shape of
its input; half of its channels go through each branch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models.fractal import (
    Attention,
    ConvNorm,
    RelativeAttention,
    Style,
    attend_to_each_other,
    gate,
    joined_conv_norm,
)
from vemseg_jax.resize import upsample2x


class Fusion(nn.Module):
    """Joins two maps of `[b, h, w, c]`, each first weighted by its attention to the other."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array, *, train: bool) -> jax.Array:
        """Two maps of one shape -> `[b, h, w, features]`."""
        channels, dtype = first.shape[-1], self.style.dtype
        to_second, to_first = attend_to_each_other(
            RelativeAttention(channels, self.heads, self.style, name="relatt12"),
            RelativeAttention(channels, self.heads, self.style, name="relatt21"),
            first,
            second,
            train=train,
        )
        both = [
            first * (1 + gate(self, "gamma1").astype(dtype) * to_second),
            second * (1 + gate(self, "gamma2").astype(dtype) * to_first),
        ]
        fuse = ConvNorm(self.features, self.style, groups=self.heads, name="fuse")
        return nn.relu(fuse(jnp.concatenate(both, -1), train=train))


class _Expand(nn.Module):
    """Doubles a map and convolves it twice: `[b, h, w, c] -> [b, 2h, 2w, features]`."""

    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = upsample2x(x)
        for name in ("conv1", "conv2"):
            conv = ConvNorm(self.features, self.style, groups=self.heads, name=name)
            x = nn.relu(conv(x, train=train))
        return x


class _ExpandAndCombine(nn.Module):
    """Doubles a map and joins it with one of that size.

    With `fuse` (unit V2) by attention, else (V1) by channel and a convolution.
    """

    features: int
    heads: int
    style: Style
    fuse: bool

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        def conv(x: jax.Array, name: str) -> jax.Array:
            layer = ConvNorm(self.features, self.style, groups=self.heads, name=name)
            return nn.relu(layer(x, train=train))

        x = conv(upsample2x(x), "conv1")
        if not self.fuse:
            return conv(jnp.concatenate([x, skip], -1), "conv2")
        fusion = Fusion(self.features, self.heads, self.style, name="conv3")
        return fusion(x, conv(skip, "conv2"), train=train)


class CEECUnit(nn.Module):
    """One unit of CEECNet, `version` 1 or 2; V2 joins maps by attention where V1 convolves."""

    version: int
    features: int
    heads: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, features]`, h and w even; same shape out."""
        half, dtype = self.features // 2, self.style.dtype
        starts = [self._conv(half, f"conv_init_{n}") for n in (1, 2)]
        start_1, start_2 = jnp.split(joined_conv_norm(starts, x, train=train), 2, -1)
        first = self._compress_expand(start_1, train)
        second = self._expand_compress(start_2, train)

        to_second, to_first = attend_to_each_other(
            RelativeAttention(half, self.heads, self.style, name="ratt122"),
            RelativeAttention(half, self.heads, self.style, name="ratt211"),
            first,
            second,
            train=train,
        )
        gamma2, gamma3 = gate(self, "gamma2").astype(dtype), gate(self, "gamma3").astype(dtype)
        both = (first * (1 + gamma2 * to_second), second * (1 + gamma3 * to_first))
        if self.version == 1:
            collect = ConvNorm(self.features, self.style, name="collect")
            joined = nn.relu(collect(jnp.concatenate(both, -1), train=train))
        else:
            joined = Fusion(self.features, 1, self.style, name="collect")(*both, train=train)
        attention = Attention(self.features, self.heads, self.style, name="att")
        gamma1 = gate(self, "gamma1").astype(dtype)
        return (x + joined) * (1 + gamma1 * attention(x, train=train))

    def _conv(self, features: int, name: str, stride: int = 1) -> ConvNorm:
        return ConvNorm(features, self.style, stride=stride, groups=self.heads, name=name)

    def _compress_expand(self, start: jax.Array, train: bool) -> jax.Array:
        """The branch that goes to half the size and back: `[b, h, w, features / 2]`."""
        y = nn.relu(self._conv(self.features, "compr11", 2)(start, train=train))
        y = nn.relu(self._conv(self.features, "compr12")(y, train=train))
        expand = _ExpandAndCombine(
            self.features // 2, self.heads, self.style, fuse=self.version == 2, name="expand1"
        )
        return expand(y, start, train=train)

    def _expand_compress(self, start: jax.Array, train: bool) -> jax.Array:
        """The branch that goes to twice the size and back: `[b, h, w, features / 2]`."""
        half = self.features // 2
        y = _Expand(half // 2, self.heads, self.style, name="expand2")(start, train=train)
        y = nn.relu(self._conv(half, "compr21", 2)(y, train=train))
        if self.version == 2:
            return Fusion(half, self.heads, self.style, name="compr22")(y, start, train=train)
        joined = jnp.concatenate([y, start], -1)
        return nn.relu(self._conv(half, "compr22")(joined, train=train))
