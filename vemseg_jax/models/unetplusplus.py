"""UNet++ on a ResNet encoder."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.models import layers, resnet
from vemseg_jax.models.smp_decoder import DecoderBlock, segmentation_head
from vemseg_jax.resize import upsample2x


@dataclasses.dataclass(unsafe_hash=True)
class UNetPlusPlusConfig(ModelConfig):
    """UNet++; 26,072,337 parameters with ResNet-34 at depth 5.

    At depth 3 with decoder channels (128, 64, 16), the paper's semi-supervised configuration, it
    has 2,017,937: the reference's 21,954,705 count encoder stages that its forward pass never
    reaches.

    Attributes:
      in_channels: channels of the image.
      num_classes: output channels, a sigmoid each.
      encoder: the encoder, "resnet18" or "resnet34".
      encoder_depth: number of times the encoder halves the size, 3 to 5.
      decoder_channels: channels of the decoder's levels, deepest first, one per halving.
      deep_supervision: a head on every branch; their average is the prediction.
    """

    encoder: str = "resnet34"
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    deep_supervision: bool = False


class _Decoder(nn.Module):
    """Nested, densely joined decoder; returns the branches' last maps, shallowest first.

    Node `x_d_l` lies at the size of encoder map `l + 1` from the bottom and joins the node below
    it, `x_d_(l-1)`, with all earlier nodes of its own size and the encoder's map. Nodes with
    `d = l` come first. The last node, `x_0_L`, has the image's size and no map to join.
    """

    decoder_channels: tuple[int, ...]
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, maps: list[jax.Array], *, train: bool) -> list[jax.Array]:
        """`maps` of the encoder, largest first."""
        deepest_first = maps[::-1]
        last = len(maps) - 1
        nodes: dict[tuple[int, int], jax.Array] = {}
        for column in range(last):
            for d in range(last - column):
                level = d + column
                below = nodes[d, level - 1] if column else deepest_first[level]
                skip = deepest_first[level + 1]
                earlier = [nodes[i, level] for i in range(d + 1, level + 1)]
                # A branch's end has the decoder's channels, an inner node the encoder's.
                features = skip.shape[-1] if d else self.decoder_channels[level]
                block = DecoderBlock(features, self.dtype, name=f"blocks_x_{d}_{level}")
                nodes[d, level] = block(below, [*earlier, skip], train=train)
        block = DecoderBlock(self.decoder_channels[last], self.dtype, name=f"blocks_x_0_{last}")
        final = block(nodes[0, last - 1], [], train=train)
        return [nodes[d, last - 1] for d in range(last - 1, 0, -1)] + [final]


class UNetPlusPlus(nn.Module):
    """UNet++: a U-Net whose skips pass through nested decoders.

    Source: Zhou et al. 2018, in the form of segmentation_models_pytorch 0.3.2, which the paper
    used. Sizes that are not multiples of `2 ** encoder_depth` are padded by repeating the edge
    and the result is cropped; the reference refuses them.

    With `deep_supervision` each branch X(0, 1) to X(0, L) has a head. The nodes of the inner
    branches lie at half the image's size here, so their logits are doubled bilinearly.

    Input `image: [b, h, w, in_channels]` float32, normalised grey values; outputs `prob` in [0, 1]
    and `logits`, `[b, h, w, num_classes]` float32; with `deep_supervision`
    the logits of every branch too.
    """

    config: UNetPlusPlusConfig
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Segments normalised images.

        Args:
          image: `[b, h, w, in_channels]`.
          train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
          `prob` and `logits`, `[b, h, w, num_classes]`, float32. With deep supervision `prob` is
          the mean over branches, `logits` are its log-odds, and `branch_1` to `branch_L` are the
          logits of each.
        """
        config, (height, width) = self.config, image.shape[1:3]
        blocks = resnet.BLOCKS[config.encoder]
        encoder = resnet.ResNetEncoder(blocks, config.encoder_depth, self.dtype, name="encoder")
        maps = encoder(layers.pad_to_multiple(image, 2**config.encoder_depth), train=train)
        decoder = _Decoder(tuple(config.decoder_channels), self.dtype, name="decoder")
        *inner, final = decoder(maps, train=train)

        def head(x: jax.Array, name: str) -> jax.Array:
            return segmentation_head(x, config.num_classes, self.dtype, name)

        logits = head(final, "segmentation_head_0")[:, :height, :width]
        if not config.deep_supervision:
            return {"prob": nn.sigmoid(logits), "logits": logits}
        branches = [
            upsample2x(head(x, f"branch_head_{n}"))[:, :height, :width]
            for n, x in enumerate(inner, 1)
        ] + [logits]
        prob = jnp.mean(jnp.stack([nn.sigmoid(branch) for branch in branches]), 0)
        tiny = jnp.finfo(prob.dtype).eps
        clipped = jnp.clip(prob, tiny, 1 - tiny)
        outputs = {"prob": prob, "logits": jnp.log(clipped) - jnp.log1p(-clipped)}
        return outputs | {f"branch_{n}": branch for n, branch in enumerate(branches, 1)}


def make_unetplusplus(config: UNetPlusPlusConfig, dtype: layers.Dtype) -> UNetPlusPlus:
    """UNet++ of the paper."""
    resnet.check_encoder(config.encoder, config.encoder_depth, config.decoder_channels)
    return UNetPlusPlus(config=config, dtype=dtype)
