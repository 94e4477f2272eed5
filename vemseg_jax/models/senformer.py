"""SenFormer: an ensemble of transformer learners on a Swin backbone."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.config import ModelConfig
from vemseg_jax.errors import InputError
from vemseg_jax.models import layers
from vemseg_jax.models.swin import Swin, SwinBlock
from vemseg_jax.models.transformer import INIT, MLP, Dense, attend, layer_norm
from vemseg_jax.resize import resize_bilinear, resize_nearest

# Channels, blocks per stage, heads per stage, drop path rate.
BACKBONES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 0.3),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 0.2),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 0.2),
    # For tests and trials: far too small to learn much.
    "nano": (24, (1, 1, 2, 1), (1, 2, 4, 8), 0.1),
}
CLAMP = 1e-15


@dataclasses.dataclass(unsafe_hash=True)
class SenFormerConfig(ModelConfig):
    """SenFormer; 141,785,050 parameters with "tiny", 163,102,954 with "small".

    Attributes:
      in_channels: channels of the image.
      num_classes: classes that exclude each other, background first.
      backbone: Swin "tiny", "small" or "base" ("nano" for trials).
      features: channels of neck and learners.
      heads: number of heads of their attentions.
      branch_depth: decoder blocks of each learner.
      drop_path: share of residual branches dropped in the last block of the backbone while
        training; negative takes the reference's, 0.3 for "tiny" and 0.2 for the larger ones.
    """

    exclusive = True

    num_classes: int = 2
    backbone: str = "tiny"
    features: int = 512
    heads: int = 8
    branch_depth: int = 6
    drop_path: float = -1.0


class _Lateral(nn.Module):
    """1 x 1 convolution *with padding 1*, as the reference has it, BatchNorm, ReLU."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h + 2, w + 2, features]`."""
        # Zero padding and a 1 x 1 kernel: the frame holds the bias.
        conv = layers.Conv(self.features, 1, padding=1, dtype=self.dtype, name="0")
        return nn.relu(layers.BatchNorm(dtype=self.dtype, name="1")(conv(x), train=train))


class _Neck(nn.Module):
    """Feature pyramid with a Swin block on each level."""

    features: int
    heads: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, maps: list[jax.Array], *, train: bool) -> list[jax.Array]:
        laterals = [
            _Lateral(self.features, self.dtype, name=f"lateral_convs_{n}")(x, train=train)
            for n, x in enumerate(maps)
        ]
        for n in range(len(laterals) - 1, 0, -1):
            laterals[n - 1] += resize_nearest(laterals[n], laterals[n - 1].shape[1:3])
        return [
            SwinBlock(self.heads, False, dtype=self.dtype, name=f"fpn_swins_{n}")(x, train=train)
            for n, x in enumerate(laterals)
        ]


class _CrossAttention(nn.Module):
    """Attention of few queries to many tokens.

    Keys and values are not made: with K = f Wk + bk, q K' = (q Wk') f' + q bk', and with weights
    that sum to 1, A (f Wv + bv) = (A f) Wv + bv. With L queries and h heads a token costs 2 L h c
    products where its key and value alone would cost 2 c^2, which is 32 times as much for two
    classes and the reference's 8 heads of 64.
    """

    heads: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
        """`queries: [b, l, c]`, `tokens: [b, n, c]` -> `[b, l, c]`."""
        b, length, c = queries.shape
        size = c // self.heads
        q = Dense(c, dtype=self.dtype, name="to_q")(queries) * size**-0.5
        q = q.reshape(b, length, self.heads, size)
        kernel, bias = Dense(2 * c, dtype=self.dtype, name="kv").weights(c)
        to_key, to_value = jnp.moveaxis(kernel.reshape(c, 2, self.heads, size), 1, 0)
        assert bias is not None
        key_bias, value_bias = bias.reshape(2, self.heads, size)

        by_token = jnp.einsum("blhd,chd->bhlc", q, to_key)
        logits = jnp.einsum("bhlc,bnc->bhln", by_token, tokens)
        logits = logits + jnp.einsum("blhd,hd->bhl", q, key_bias)[..., None]
        seen = attend(logits, tokens[:, None])
        values = jnp.einsum("bhlc,chd->blhd", seen, to_value) + value_bias
        return Dense(c, dtype=self.dtype, name="proj")(values.reshape(b, length, c))


class _SelfAttention(nn.Module):
    """Attention among the queries, `[b, l, c]`."""

    heads: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, length, c = x.shape
        qkv = Dense(3 * c, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(b, length, 3, self.heads, c // self.heads)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))
        y = attend((q * (c // self.heads) ** -0.5) @ k.swapaxes(-1, -2), v)
        return Dense(c, dtype=self.dtype, name="proj")(y.swapaxes(1, 2).reshape(b, length, c))


class _DecoderBlock(nn.Module):
    """Queries look at the tokens, at each other, and pass an MLP, each as a residual."""

    heads: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, queries: jax.Array, tokens: jax.Array) -> jax.Array:
        def normed(x: jax.Array, name: str) -> jax.Array:
            return layer_norm(x, dtype=self.dtype, name=name)

        cross = _CrossAttention(self.heads, self.dtype, name="cross_attn")
        x = queries + cross(normed(queries, "norm1"), tokens)
        x = x + _SelfAttention(self.heads, self.dtype, name="attn")(normed(x, "norm2"))
        return x + MLP(dtype=self.dtype, name="mlp")(normed(x, "norm3"))


def _in_turn(blocks: list[_DecoderBlock], queries: jax.Array, tokens: jax.Array) -> jax.Array:
    """Applies blocks of one shape one after the other, compiled once."""
    alone = _DecoderBlock(blocks[0].heads, blocks[0].dtype, parent=None)
    params = [block.variables["params"] for block in blocks]
    stacked = jax.tree.map(lambda *values: jnp.stack(values), *params)

    def body(x: jax.Array, values: dict) -> tuple[jax.Array, None]:
        y: Any = alone.apply({"params": values}, x, tokens)
        return y, None

    return jax.lax.scan(body, queries, stacked)[0]


class _Learner(nn.Module):
    """One learner: `[b, h, w, c]` to float32 logits `[b, h, w, num_classes]`."""

    num_classes: int
    heads: int
    depth: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        tokens = layer_norm(x.reshape(b, h * w, c), dtype=self.dtype, name="norm_features")
        shape = (1, self.num_classes, c)
        # Zero in the reference, where all classes start out alike.
        queries = self.param("queries", INIT, shape, jnp.float32)
        embedding = jnp.broadcast_to(queries, (b, *shape[1:])).astype(self.dtype)
        blocks = [
            _DecoderBlock(self.heads, self.dtype, name=f"layers_{number}")
            for number in range(self.depth)
        ]
        if self.is_initializing():
            for block in blocks:
                embedding = block(embedding, tokens)
        else:
            embedding = _in_turn(blocks, embedding, tokens)
        embedding = layer_norm(embedding, dtype=self.dtype, name="norm_embs")
        logits = jnp.einsum("bnc,bkc->bnk", tokens, embedding)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return logits.reshape(b, h, w, self.num_classes)


class SenFormer(nn.Module):
    """Swin backbone, feature pyramid and one transformer learner per level, averaged.

    Source: Bousselham et al. 2021, "Efficient self-ensemble for semantic segmentation", as used
    by Pagano et al. 2023. The reference's ensemble is the *sum* of the learners' softmaxes, in
    [0, 4]; it is kept as `ensemble`, and `prob` is their mean.

    Input `image: [b, h, w, in_channels]` float32, normalised grey values; outputs `prob` in [0, 1]
    and `logits`, `[b, h, w, num_classes]` float32, background first,
    and what the learners say.
    """

    config: SenFormerConfig
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Segments normalised images.

        Args:
          image: `[b, h, w, in_channels]`, any size.
          train: whether residual branches are dropped (needs the rng "dropout") and BatchNorm
            uses and records the statistics of this batch.

        Returns:
          Float32 maps. `prob` `[b, h, w, num_classes]`: the probability of each class,
          background first, in [0, 1]; `logits`, its logarithm; `ensemble` and `learner_0` to
          `learner_3` `[b, h / 4 + 2, w / 4 + 2, num_classes]`: the sum of the softmaxes and the
          logits of each learner.
        """
        config = self.config
        features, depths, heads, rate = BACKBONES[config.backbone]
        rate = rate if config.drop_path < 0 else config.drop_path
        backbone = Swin(features, depths, heads, rate, dtype=self.dtype, name="backbone")
        neck = _Neck(config.features, config.heads, self.dtype, name="neck")
        maps = neck(backbone(image.astype(self.dtype), train=train), train=train)
        size = maps[0].shape[1:3]
        learners = []
        for n, x in enumerate(maps):
            learner = _Learner(
                config.num_classes,
                config.heads,
                config.branch_depth,
                self.dtype,
                name=f"learners_{n}",
            )
            learners.append(resize_bilinear(learner(x), size))
        ensemble = jnp.sum(jnp.stack([nn.softmax(logits) for logits in learners]), 0)
        prob = resize_bilinear(ensemble, image.shape[1:3]) / len(learners)
        outputs = {"prob": prob, "logits": jnp.log(jnp.maximum(prob, CLAMP)), "ensemble": ensemble}
        return outputs | {f"learner_{n}": logits for n, logits in enumerate(learners)}


def make_senformer(config: SenFormerConfig, dtype: layers.Dtype) -> SenFormer:
    """SenFormer of the paper."""
    if config.backbone not in BACKBONES:
        raise InputError(
            f"--config.model.backbone is {config.backbone!r}; "
            f"choose from: {', '.join(sorted(BACKBONES))}"
        )
    if config.num_classes < 2:
        raise InputError(
            f"--config.model.num_classes is {config.num_classes}; SenFormer needs at least 2, "
            "background first"
        )
    if config.features % config.heads:
        raise InputError(
            f"--config.model.features={config.features} do not divide into "
            f"--config.model.heads={config.heads}"
        )
    if not config.drop_path < 1:
        raise InputError(
            f"--config.model.drop_path is {config.drop_path}; it must be below 1 "
            "(negative takes the reference's)"
        )
    return SenFormer(config=config, dtype=dtype)
