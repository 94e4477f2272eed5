"""ResNet-18 and ResNet-34 as encoders, down to the stage that is needed."""

import flax.linen as nn
import jax

from vemseg_jax.errors import InputError
from vemseg_jax.models import layers

# Basic blocks per stage.
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
STEM_FEATURES = 64
DEPTHS = (3, 4, 5)

# torchvision's initial weights.
_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm, and a shortcut."""

    features: int
    stride: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[b, h, w, c] -> [b, h / stride, w / stride, features]`."""

        def conv(x: jax.Array, name: str, *, size: int = 3, stride: int = 1) -> jax.Array:
            return layers.Conv(
                self.features,
                size,
                stride=stride,
                use_bias=False,
                kernel_init=_INIT,
                dtype=self.dtype,
                name=name,
            )(x)

        def norm(x: jax.Array, name: str) -> jax.Array:
            return layers.BatchNorm(dtype=self.dtype, name=name)(x, train=train)

        y = nn.relu(norm(conv(x, "conv1", stride=self.stride), "bn1"))
        y = norm(conv(y, "conv2"), "bn2")
        if self.stride != 1 or x.shape[-1] != self.features:
            x = norm(conv(x, "downsample_0", size=1, stride=self.stride), "downsample_1")
        return nn.relu(x + y)


class ResNetEncoder(nn.Module):
    """ResNet without its classifier, cut after `depth` halvings of the size.

    Source: He et al. 2016. Only the stages that are reached hold parameters.
    """

    blocks: tuple[int, ...]
    depth: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """The maps of every size, largest first.

        Args:
          image: `[b, h, w, c]`, h and w multiples of `2 ** depth`.
          train: whether BatchNorm uses the statistics of this batch.

        Returns:
          `depth` maps: `[b, h / 2, w / 2, 64]`, `[b, h / 4, w / 4, 64]`, then twice the channels
          at half the size each.
        """
        x = layers.Conv(
            STEM_FEATURES,
            7,
            stride=2,
            use_bias=False,
            kernel_init=_INIT,
            dtype=self.dtype,
            name="conv1",
        )(image)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn1")(x, train=train))
        maps = [x]
        x = layers.max_pool3x3_stride2(x)
        for stage in range(1, self.depth):
            for number in range(self.blocks[stage - 1]):
                x = BasicBlock(
                    STEM_FEATURES * 2 ** (stage - 1),
                    stride=2 if stage > 1 and number == 0 else 1,
                    dtype=self.dtype,
                    name=f"layer{stage}_{number}",
                )(x, train=train)
            maps.append(x)
        return maps


def check_encoder(encoder: str, depth: int, decoder_channels: tuple[int, ...]) -> None:
    """Refuses an unknown encoder or depth, or channels for another number of levels."""
    if encoder not in BLOCKS:
        raise InputError(
            f"--config.model.encoder is {encoder!r}; choose from: {', '.join(sorted(BLOCKS))}"
        )
    if depth not in DEPTHS:
        raise InputError(
            f"--config.model.encoder_depth is {depth}; it must be one of "
            f"{', '.join(map(str, DEPTHS))}"
        )
    if len(decoder_channels) != depth or min(decoder_channels) < 1:
        raise InputError(
            f"--config.model.decoder_channels is {tuple(decoder_channels)}; it must hold "
            f"{depth} positive numbers, as many as --config.model.encoder_depth"
        )
