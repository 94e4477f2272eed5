"""Swin Transformer backbone.

Source: Liu et al. 2021, in the form of its segmentation backbone, as used by Pagano et al. 2023.
Maps are `[b, h, w, c]` throughout.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.models import layers
from vemseg_jax.models.transformer import INIT, MLP, Dense, DropPath, attend, layer_norm

WINDOW = 7
PATCH = 4
# What keeps pixels that a shift brought together from seeing each other.
MASKED = -100.0


@functools.cache
def relative_index() -> np.ndarray:
    """`[49, 49]` rows of the bias table for every pair of pixels of a window."""
    y, x = np.divmod(np.arange(WINDOW * WINDOW), WINDOW)
    rows = y[:, None] - y[None] + WINDOW - 1
    columns = x[:, None] - x[None] + WINDOW - 1
    return rows * (2 * WINDOW - 1) + columns


@functools.cache
def shift_mask(height: int, width: int) -> np.ndarray:
    """`[windows, 49, 49]`: 0 for pixels that were neighbours before the shift, else -100."""

    def region(size: int) -> np.ndarray:
        position = np.arange(size)
        return (position >= size - WINDOW).astype(int) + (position >= size - WINDOW // 2)

    regions = 3 * region(height)[:, None] + region(width)[None]
    tiles = regions.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW).swapaxes(1, 2)
    tiles = tiles.reshape(-1, WINDOW * WINDOW)
    return np.where(tiles[:, :, None] == tiles[:, None], 0, MASKED).astype(np.float32)


def _to_windows(x: jax.Array) -> jax.Array:
    """`[b, h, w, c] -> [b, windows, 49, c]`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).swapaxes(2, 3)
    return x.reshape(b, -1, WINDOW * WINDOW, c)


def _from_windows(x: jax.Array, height: int, width: int) -> jax.Array:
    """The inverse of `_to_windows`."""
    b, _, _, c = x.shape
    x = x.reshape(b, height // WINDOW, width // WINDOW, WINDOW, WINDOW, c).swapaxes(2, 3)
    return x.reshape(b, height, width, c)


class WindowAttention(nn.Module):
    """Self-attention among the pixels of each window, with relative position bias."""

    heads: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        """`x: [b, windows, 49, c]`, `mask: [windows, 49, 49]` added to the logits or None."""
        b, windows, n, c = x.shape
        table = self.param(
            "relative_position_bias_table", INIT, ((2 * WINDOW - 1) ** 2, self.heads), jnp.float32
        )
        qkv = Dense(3 * c, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(b, windows, n, 3, self.heads, c // self.heads)
        q, k, v = jnp.moveaxis(qkv, (3, 4), (0, 3))
        bias = jnp.moveaxis(table[relative_index()], -1, 0)[None]
        if mask is not None:
            bias = bias + mask[:, None]
        logits = (q * (c // self.heads) ** -0.5) @ k.swapaxes(-1, -2) + bias.astype(self.dtype)
        y = attend(logits, v).swapaxes(2, 3).reshape(b, windows, n, c)
        return Dense(c, dtype=self.dtype, name="proj")(y)


class SwinBlock(nn.Module):
    """Window attention, shifted or not, and an MLP, each as a residual."""

    heads: int
    shifted: bool
    drop_path: float = 0.0
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c]`, same shape out; padded to whole windows inside."""
        _, h, w, _ = x.shape
        y = layer_norm(x, dtype=self.dtype, name="norm1")
        y = jnp.pad(y, ((0, 0), (0, -h % WINDOW), (0, -w % WINDOW), (0, 0)))
        height, width = y.shape[1:3]
        shift, mask = WINDOW // 2, None
        if self.shifted:
            y = jnp.roll(y, (-shift, -shift), (1, 2))
            mask = shift_mask(height, width)
        attention = WindowAttention(self.heads, dtype=self.dtype, name="attn")
        y = _from_windows(attention(_to_windows(y), mask), height, width)
        if self.shifted:
            y = jnp.roll(y, (shift, shift), (1, 2))
        x = x + DropPath(self.drop_path)(y[:, :h, :w], train=train)
        y = MLP(dtype=self.dtype, name="mlp")(layer_norm(x, dtype=self.dtype, name="norm2"))
        return x + DropPath(self.drop_path)(y, train=train)


class PatchEmbedding(nn.Module):
    """4 x 4 patches as tokens: `[b, h, w, c] -> [b, h / 4, w / 4, features]`, zero-padded."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Patches do not overlap, so the convolution is one product per patch."""
        _, h, w, _ = image.shape
        x = jnp.pad(image, ((0, 0), (0, -h % PATCH), (0, -w % PATCH), (0, 0)))
        x = layers.PatchConv(self.features, PATCH, dtype=self.dtype, name="proj")(x)
        return layer_norm(x, dtype=self.dtype, name="norm")


class PatchMerging(nn.Module):
    """Joins 2 x 2 pixels: `[b, h, w, c] -> [b, h / 2, w / 2, 2c]`, odd sizes zero-padded."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Channels come column by column of the 2 x 2 pixels."""
        c = x.shape[-1]
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        b, h, w, _ = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(b, h // 2, w // 2, 4 * c)
        x = layer_norm(x, dtype=self.dtype, name="norm")
        return Dense(2 * c, use_bias=False, dtype=self.dtype, name="reduction")(x)


class Swin(nn.Module):
    """The backbone; returns the normalised map of every stage."""

    features: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    drop_path: float
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """Maps of 1/4, 1/8, 1/16, 1/32 of the size (rounded up), channels doubling.

        Args:
          image: `[b, h, w, c]`, any size.
          train: whether residual branches are dropped, at rates that rise linearly from 0 in
            the first block to `drop_path` in the last.
        """
        rates = np.linspace(0, self.drop_path, sum(self.depths)).tolist()
        x = PatchEmbedding(self.features, dtype=self.dtype, name="patch_embed")(image)
        maps = []
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                name = f"layers_{stage - 1}_downsample"
                x = PatchMerging(dtype=self.dtype, name=name)(x)
            for number in range(depth):
                x = SwinBlock(
                    heads,
                    shifted=number % 2 == 1,
                    drop_path=rates.pop(0),
                    dtype=self.dtype,
                    name=f"layers_{stage}_blocks_{number}",
                )(x, train=train)
            maps.append(layer_norm(x, dtype=self.dtype, name=f"norm{stage}"))
        return maps
