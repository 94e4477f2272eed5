"""ResUNet: a U-Net of pre-activation residual units with strided convolutions."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.models import layers


@dataclasses.dataclass(unsafe_hash=True)
class ResUNetConfig(ModelConfig):
    """ResUNet; 32,974,401 parameters with the reference's filters.

    Attributes:
      filters: channels of the levels, the finest first.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512, 512)


class ResidualUnit(nn.Module):
    """BN-ReLU-conv twice, plus a 3 x 3 convolution with BatchNorm as the shortcut."""

    features: int
    stride: int = 1
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h / stride, w / stride, features]`, rounded up."""
        y = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn1")(x, train=train))
        y = layers.Conv(self.features, stride=self.stride, dtype=self.dtype, name="conv1")(y)
        y = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn2")(y, train=train))
        y = layers.Conv(self.features, dtype=self.dtype, name="conv2")(y)
        skip = layers.Conv(self.features, stride=self.stride, dtype=self.dtype, name="skip_conv")
        return y + layers.BatchNorm(dtype=self.dtype, name="skip_bn")(skip(x), train=train)


class Stem(nn.Module):
    """First unit, without activation before its first convolution."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h, w, features]`."""
        y = layers.Conv(self.features, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn1")(y, train=train))
        y = layers.Conv(self.features, dtype=self.dtype, name="conv2")(y)
        return y + layers.Conv(self.features, dtype=self.dtype, name="skip_conv")(x)


class ResUNet(nn.Module):
    """Deep residual U-Net. Source: Zhang, Liu and Wang 2018, as used by Pagano et al. 2023.

    Departs from the paper: one level more, 3 x 3 shortcuts with BatchNorm, transposed
    convolutions. Sizes that are not multiples of `2 ** (len(filters) - 1)` are padded by
    repeating the edge and the result is cropped; the reference refuses them.

    Input `image: [b, h, w, in_channels]` float32, normalised grey values; outputs `prob` in [0, 1]
    and `logits`, `[b, h, w, num_classes]` float32.
    """

    config: ResUNetConfig
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Segments normalised images.

        Args:
          image: `[b, h, w, in_channels]`.
          train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
          `prob` (sigmoid) and `logits`, `[b, h, w, num_classes]`, float32.
        """
        filters, height, width = self.config.filters, image.shape[1], image.shape[2]
        depth = len(filters) - 1

        x = layers.pad_to_multiple(image, 2**depth)
        x = Stem(filters[0], dtype=self.dtype, name="stem")(x, train=train)
        skips = []
        for level in range(1, depth + 1):
            skips.append(x)
            unit = ResidualUnit(filters[level], stride=2, dtype=self.dtype, name=f"down{level}")
            x = unit(x, train=train)
        for level in range(1, depth + 1):
            skip = skips.pop()
            up = layers.ConvTranspose2x(x.shape[-1], dtype=self.dtype, name=f"upsample{level}")
            x = jnp.concatenate([up(x), skip], -1)
            x = ResidualUnit(skip.shape[-1], dtype=self.dtype, name=f"up{level}")(x, train=train)
        logits = layers.Conv(self.config.num_classes, 1, dtype=self.dtype, name="output")(x)
        logits = logits[:, :height, :width]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return {"prob": nn.sigmoid(logits), "logits": logits}


def make_resunet(config: ResUNetConfig, dtype: layers.Dtype) -> ResUNet:
    """ResUNet of the reference: 4 down-sampling steps."""
    return ResUNet(config=config, dtype=dtype)
