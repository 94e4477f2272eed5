"""U-Nets of the reference: SmallUNet (3 levels) and UNet (4 levels, with a tanh head)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.errors import InputError
from vemseg_jax.models import layers
from vemseg_jax.resize import upsample2x_aligned


@dataclasses.dataclass(unsafe_hash=True)
class SmallUNetConfig(ModelConfig):
    """U-Net with 3 levels; 269,009 parameters at 16 base channels.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels, a sigmoid each.
      base_channels: channels of the first level; each level down has twice as many, the last
        one the same number where `bilinear` is on.
      bilinear: enlarge maps by bilinear interpolation; otherwise by transposed convolutions.
      levels: number of times the size is halved, at least once.
    """

    base_channels: int = 16
    bilinear: bool = True
    levels: int = 3
    # Without annotation it is no field.
    tanh_head = False


@dataclasses.dataclass(unsafe_hash=True)
class UNetConfig(ModelConfig):
    """U-Net with 4 levels and a tanh head; 17,266,306 parameters at 64 base channels.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels, a sigmoid each.
      base_channels: channels of the first level; each level down has twice as many, the last
        one the same number where `bilinear` is on.
      bilinear: enlarge maps by bilinear interpolation; otherwise by transposed convolutions.
      tanh_head: add a second output, passed through tanh, as the reference has.
      levels: number of times the size is halved, at least once.
    """

    base_channels: int = 64
    bilinear: bool = True
    tanh_head: bool = True
    levels: int = 4


class DoubleConv(nn.Module):
    """Twice (3 x 3 convolution, BatchNorm, ReLU): `[b, h, w, c] -> [b, h, w, features]`."""

    features: int
    mid_features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies both convolutions."""
        x = layers.Conv(self.mid_features, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn1")(x, train=train))
        x = layers.Conv(self.features, dtype=self.dtype, name="conv2")(x)
        return nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn2")(x, train=train))


class Up(nn.Module):
    """Doubles the deeper map, joins the encoder's map of that size, and convolves both.

    The upsampled map is zero-padded to the encoder's when sizes are odd.
    """

    features: int
    bilinear: bool
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, *, train: bool) -> jax.Array:
        """`x: [b, h, w, c]`, `skip: [b, 2h(+1), 2w(+1), c']` -> the size of `skip`."""
        if self.bilinear:
            x = upsample2x_aligned(x)
        else:
            x = layers.ConvTranspose2x(x.shape[-1] // 2, dtype=self.dtype, name="up")(x)
        x = jnp.concatenate([skip, layers.pad_to(x, (skip.shape[1], skip.shape[2]))], -1)
        mid = x.shape[-1] // 2 if self.bilinear else self.features
        return DoubleConv(self.features, mid, dtype=self.dtype, name="conv")(x, train=train)


class UNet(nn.Module):
    """U-Net with max pooling and bilinear (`align_corners=True`) or transposed up-sampling.

    Source: Ronneberger et al. 2015, with BatchNorm and padded convolutions, as used by Pagano
    et al. 2023. Departs from the paper: same-size output, half the channels at the bottom when
    `bilinear`.

    Input `image: [b, h, w, in_channels]` float32, normalised grey values; outputs `prob` in [0, 1]
    and `logits`, `[b, h, w, num_classes]` float32, and `tanh` with a tanh head.
    """

    config: SmallUNetConfig | UNetConfig
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Segments normalised images.

        Args:
          image: `[b, h, w, in_channels]`, any size of at least `2 ** levels` pixels a side.
          train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
          `prob` (sigmoid) and `logits`, `[b, h, w, num_classes]`, float32; with a tanh head
          also `tanh`, same shape, in [-1, 1].
        """
        base, factor = self.config.base_channels, 2 if self.config.bilinear else 1
        levels = self.config.levels
        x = DoubleConv(base, base, dtype=self.dtype, name="inc")(image, train=train)
        skips = []
        for level in range(1, levels + 1):
            skips.append(x)
            features = base * 2**level // (factor if level == levels else 1)
            x = DoubleConv(features, features, dtype=self.dtype, name=f"down{level}")(
                layers.max_pool2x(x), train=train
            )
        for level in range(1, levels + 1):
            last = level == levels
            features = base if last else base * 2 ** (levels - level) // factor
            x = Up(features, self.config.bilinear, dtype=self.dtype, name=f"up{level}")(
                x, skips.pop(), train=train
            )
        return self._heads(x)

    def _heads(self, x: jax.Array) -> dict[str, jax.Array]:
        classes = self.config.num_classes
        logits = layers.Conv(classes, 1, dtype=self.dtype, name="outc")(x)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        outputs = {"prob": nn.sigmoid(logits), "logits": logits}
        if self.config.tanh_head:
            tanh = layers.Conv(classes, 1, dtype=self.dtype, name="tanh_conv")(x)
            outputs["tanh"] = jnp.tanh(tanh.astype(logits.dtype))
        return outputs


def make_unet(config: SmallUNetConfig | UNetConfig, dtype: layers.Dtype) -> UNet:
    """SmallUNet or UNet of the reference.

    Raises:
      InputError: fewer than one level.
    """
    if config.levels < 1:
        raise InputError(f"--config.model.levels is {config.levels}; it must be at least 1")
    return UNet(config, dtype=dtype)
