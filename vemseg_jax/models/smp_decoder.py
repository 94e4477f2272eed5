"""What the decoders of UNet++ and U-Net on ResNet encoders share.

Both equal segmentation_models_pytorch 0.3.2 (Iakubovskii 2019).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models import layers
from vemseg_jax.models.convolution import conv2d, upsampled_conv2d

DECODER_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
HEAD_INIT = nn.initializers.xavier_uniform()


class DecoderBlock(nn.Module):
    """Doubles a map, joins it with maps of that size, and convolves twice."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array, skips: list[jax.Array], *, train: bool) -> jax.Array:
        """`x: [b, h, w, c]`, `skips: [b, 2h, 2w, c_i]` -> `[b, 2h, 2w, features]`."""
        for number in (1, 2):
            conv = layers.Conv(
                self.features,
                use_bias=False,
                kernel_init=DECODER_INIT,
                dtype=self.dtype,
                name=f"conv{number}_0",
            )
            x = _enlarge_and_join(conv, x, skips) if number == 1 else conv(x)
            norm = layers.BatchNorm(dtype=self.dtype, name=f"conv{number}_1")
            x = nn.relu(norm(x, train=train))
        return x


def _enlarge_and_join(conv: layers.Conv, x: jax.Array, skips: list[jax.Array]) -> jax.Array:
    """`conv` of `x`, enlarged twice by repetition, and `skips`, joined by channel."""
    kernel, _ = conv.weights(x.shape[-1] + sum(skip.shape[-1] for skip in skips))
    y = upsampled_conv2d(x.astype(conv.dtype), kernel[:, :, : x.shape[-1]])
    if not skips:
        return y
    joined = jnp.concatenate(skips, -1).astype(conv.dtype)
    return y + conv2d(joined, kernel[:, :, x.shape[-1] :], padding=1)


def segmentation_head(x: jax.Array, num_classes: int, dtype: layers.Dtype, name: str) -> jax.Array:
    """3 x 3 convolution to float32 logits `[b, h, w, num_classes]`; call inside a module."""
    conv = layers.Conv(num_classes, kernel_init=HEAD_INIT, dtype=dtype, name=name)
    logits = conv(x)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
