"""Pyramid scene parsing with pooling over ever smaller cells of the map."""

import flax.linen as nn
import jax

from vemseg_jax.models import fractal


def pool_cells(x: jax.Array, cells: int) -> jax.Array:
    """Maxima over a grid of cells: `[b, h, w, c] -> [b, cells, cells, c]`.

    `h` and `w` must be multiples of `cells`.
    """
    b, h, w, c = x.shape
    return x.reshape(b, cells, h // cells, cells, w // cells, c).max((2, 4))


class PSPPooling(nn.Module):
    """Maxima over 1, 4, 16, ... cells, each convolved, joined to the map and convolved.

    Source: Diakogiannis et al. 2020 (ResUNet-a), after Zhao et al. 2017. The pooled maps are
    constant over each cell, so they are convolved and normalised with one pixel a cell and
    enlarged at the very end: the same numbers for a fraction of the work. Coarse maxima are taken
    from fine ones.
    """

    features: int
    depth: int
    style: fractal.Style

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h, w, features]`; h, w multiples of `2 ** (depth - 1)`."""
        pixels = x.shape[1] * x.shape[2]
        pooled, finest = [], x
        for level in reversed(range(self.depth)):
            finest = pool_cells(finest, 2**level)
            conv = fractal.ConvNorm(self.features, self.style, kernel_size=1, name=f"convs_{level}")
            pooled.append(conv(finest, train=train, copies=pixels // 4**level))
        join = fractal.JoinedConvNorm(self.features, self.style, name="conv_norm_final")
        return join([x, *reversed(pooled)], train=train)
