"""What the decoders of UNet++ and U-Net on ResNet encoders share.

Both equal segmentation_models_pytorch 0.3.2 (Iakubovskii 2019).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models import layers
from vemseg_jax.resize import repeat2d

DECODER_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
HEAD_INIT = nn.initializers.xavier_uniform()


class DecoderBlock(nn.Module):
    """Doubles a map, joins it with maps of that size, and convolves twice."""

    features: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array, skips: list[jax.Array], *, train: bool) -> jax.Array:
        """`x: [b, h, w, c]`, `skips: [b, 2h, 2w, c_i]` -> `[b, 2h, 2w, features]`."""
        x = jnp.concatenate([repeat2d(x, (2, 2)), *skips], -1)
        for name in ("conv1", "conv2"):
            x = layers.Conv(
                self.features,
                use_bias=False,
                kernel_init=DECODER_INIT,
                dtype=self.dtype,
                name=f"{name}_0",
            )(x)
            norm = layers.BatchNorm(dtype=self.dtype, name=f"{name}_1")
            x = nn.relu(norm(x, train=train))
        return x


def segmentation_head(x: jax.Array, num_classes: int, dtype: layers.Dtype, name: str) -> jax.Array:
    """3 x 3 convolution to float32 logits `[b, h, w, num_classes]`; call inside a module."""
    conv = layers.Conv(num_classes, kernel_init=HEAD_INIT, dtype=dtype, name=name)
    logits = conv(x)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
