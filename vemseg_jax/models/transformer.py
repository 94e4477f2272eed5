"""Dense layers, layer normalisation and attention as torch has them, on tokens `[b, n, c]`."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models import layers

# torch's default; that of flax is 1e-6.
EPSILON = 1e-5
MLP_RATIO = 4
INIT = nn.initializers.truncated_normal(0.02)


class Dense(nn.Module):
    """Linear layer over the last axis; parameters `kernel: [c, features]` and `bias`."""

    features: int
    use_bias: bool = True
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Kernel and bias, for products that are cheaper in another order."""
        kernel = self.param("kernel", INIT, (channels, self.features), jnp.float32)
        if not self.use_bias:
            return kernel.astype(self.dtype), None
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., c] -> [..., features]`."""
        kernel, bias = self.weights(x.shape[-1])
        y = jnp.einsum("...c,cf->...f", x.astype(self.dtype), kernel)
        return y if bias is None else y + bias


def layer_norm(x: jax.Array, *, dtype: layers.Dtype, name: str) -> jax.Array:
    """Normalises the last axis; call inside a module."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, dtype=dtype, name=name)(x)


class MLP(nn.Module):
    """Two dense layers with an exact GELU between, `[b, n, c] -> [b, n, c]`."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies both layers."""
        channels = x.shape[-1]
        x = Dense(MLP_RATIO * channels, dtype=self.dtype, name="fc1")(x)
        return Dense(channels, dtype=self.dtype, name="fc2")(nn.gelu(x, approximate=False))


class DropPath(nn.Module):
    """Leaves out a residual branch at random, per image, while training.

    What stays is scaled by 1 / (1 - rate). Source: Huang et al. 2016. Needs the rng "dropout".
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, ...]`, same shape out."""
        if not train or self.rate == 0:
            return x
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, x / keep, 0)


def attend(logits: jax.Array, values: jax.Array) -> jax.Array:
    """softmax(logits) values: `[..., n, m]`, `[..., m, d] -> [..., n, d]`; softmax in float32."""
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    weights = nn.softmax(logits.astype(wide)).astype(values.dtype)
    return weights @ values
