"""The head that predicts distance, then boundary, then segmentation from both."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vemseg_jax.models import layers
from vemseg_jax.models.fractal import ConvNorm, JoinedConvNorm, Style
from vemseg_jax.models.psp import PSPPooling

CRISP_SMOOTH = 1e-2
PSP_DEPTH = 4


class _Logits(nn.Module):
    """Twice (3 x 3 convolution, norm, ReLU), then a 1 x 1 convolution to float32 logits."""

    features: int
    num_classes: int
    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for name in ("logits_0", "logits_2"):
            x = nn.relu(ConvNorm(self.features, self.style, name=name)(x, train=train))
        x = layers.Conv(self.num_classes, 1, dtype=self.style.dtype, name="logits_4")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class _CrispSigmoid(nn.Module):
    """sigmoid(x / (0.01 + sigmoid(gamma))): a sigmoid whose steepness is learned."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.ones, (1,), jnp.float32)
        return nn.sigmoid(x / (CRISP_SMOOTH + nn.sigmoid(gamma)))


class MultitaskHead(nn.Module):
    """Causal multitask head with balanced features and crisp boundaries.

    Source: Diakogiannis et al. 2021, as used by Pagano et al. 2023.
    """

    features: int
    num_classes: int
    exclusive: bool
    style: Style

    @nn.compact
    def __call__(self, first: jax.Array, last: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Predicts the three maps.

        Args:
          first: `[b, h, w, features]`, the network's first map.
          last: `[b, h, w, features]`, its last one.
          train: whether BatchNorm uses the statistics of this batch.

        Returns:
          `prob`, `logits`, `boundary` and `distance`, `[b, h, w, num_classes]`, float32;
          boundary and distance in [0, 1].
        """
        features, style = self.features, self.style
        activation = nn.softmax if self.exclusive else nn.sigmoid

        def balance(x: jax.Array, name: str) -> jax.Array:
            return nn.relu(ConvNorm(features, style, kernel_size=1, name=name)(x, train=train))

        def logits(x: list[jax.Array], name: str) -> jax.Array:
            head = _Logits(features, self.num_classes, style, name=name)
            return head(jnp.concatenate(x, -1), train=train)

        psp = PSPPooling(features, PSP_DEPTH, style, name="psp_2ndlast")
        pooled = nn.relu(psp(jnp.concatenate([first, last], -1), train=train))

        distance = activation(logits([first, last], "distance_logits"))
        from_distance = balance(distance, "dist_Equalizer")
        boundary = _CrispSigmoid(name="CrispSigm")(logits([pooled, from_distance], "bound_logits"))
        from_boundary = balance(boundary, "bound_Equalizer")
        combine = JoinedConvNorm(features, style, name="Comb_bound_dist")
        combined = nn.relu(combine([from_boundary, from_distance], train=train))
        segmentation = logits([combined, pooled], "final_segm_logits")
        return {
            "prob": activation(segmentation),
            "logits": segmentation,
            "boundary": boundary,
            "distance": distance,
        }
