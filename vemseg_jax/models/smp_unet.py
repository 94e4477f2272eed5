"""U-Net on a ResNet encoder."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.models import layers, resnet
from vemseg_jax.models.smp_decoder import DecoderBlock, segmentation_head


@dataclasses.dataclass(unsafe_hash=True)
class SmpUNetConfig(ModelConfig):
    """U-Net on a ResNet encoder; 24,430,097 parameters with ResNet-34 at depth 5.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels, a sigmoid each.
      encoder: the encoder, "resnet18" or "resnet34".
      encoder_depth: number of times the encoder halves the size, 3 to 5.
      decoder_channels: channels of the decoder's levels, deepest first, one per halving.
    """

    encoder: str = "resnet34"
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)


class SmpUNet(nn.Module):
    """U-Net with nearest up-sampling on a ResNet encoder.

    Source: Ronneberger et al. 2015, in the form of segmentation_models_pytorch 0.3.2. Sizes that
    are not multiples of `2 ** encoder_depth` are padded by repeating the edge and the result is
    cropped; the reference refuses them.

    Input `image: [b, h, w, in_channels]` float32, normalised grey values; outputs `prob` in [0, 1]
    and `logits`, `[b, h, w, num_classes]` float32.
    """

    config: SmpUNetConfig
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
        config, (height, width) = self.config, image.shape[1:3]
        blocks = resnet.BLOCKS[config.encoder]
        encoder = resnet.ResNetEncoder(blocks, config.encoder_depth, self.dtype, name="encoder")
        maps = encoder(layers.pad_to_multiple(image, 2**config.encoder_depth), train=train)
        x = maps.pop()
        for level, features in enumerate(config.decoder_channels):
            block = DecoderBlock(features, self.dtype, name=f"decoder_blocks_{level}")
            x = block(x, [maps.pop()] if maps else [], train=train)
        logits = segmentation_head(x, config.num_classes, self.dtype, "segmentation_head_0")
        logits = logits[:, :height, :width]
        return {"prob": nn.sigmoid(logits), "logits": logits}


def make_smp_unet(config: SmpUNetConfig, dtype: layers.Dtype) -> SmpUNet:
    """U-Net of segmentation_models_pytorch."""
    resnet.check_encoder(config.encoder, config.encoder_depth, config.decoder_channels)
    return SmpUNet(config=config, dtype=dtype)
