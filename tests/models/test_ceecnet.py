import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.errors import InputError
from vemseg_jax.models import registry
from vemseg_jax.models.fractal import ConvNorm, Style, joined_conv_norm
from vemseg_jax.models.psp import pool_cells
from vemseg_jax.models.xnet import size_multiple


def test_size_multiple_is_the_references():
    assert size_multiple(registry.model_config("ceecnet_v1")) == 64
    assert size_multiple(registry.model_config("ceecnet_v1", depth=6)) == 256


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("ceecnet_v1", {"heads": 8}, r"16 channels, 4 in its narrowest.* 8 heads"),
        ("fractal_resnet", {"heads": 32}, r"level 0 has 16 channels.* 32 heads"),
        ("ceecnet_v2", {"norm_groups": 3}, r"4 channels.*norm_groups=3"),
        ("ceecnet_v2", {"norm": "layer"}, r"norm is 'layer'; it must be one of group, batch"),
        ("fractal_resnet", {"up_heads": "idx"}, r"up_heads is 'idx'; .* deeper, own"),
        ("fractal_resnet", {"depth": 0}, r"depth is 0; it must be at least 1"),
        ("fractal_resnet", {"exclusive": True}, r"exclusive needs .*num_classes of at least 2"),
        ("senformer", {"backbone": "huge"}, r"backbone is 'huge'; choose from: base, nano"),
        ("senformer", {"heads": 7}, r"features=512 do not divide into .*heads=7"),
        ("senformer", {"num_classes": 1}, r"num_classes is 1; SenFormer needs at least 2"),
    ],
)
def test_numbers_that_clash_are_named(name, options, message):
    with pytest.raises(InputError, match=message):
        registry.create_model(registry.model_config(name, **options))


def test_cells_are_pooled_exactly():
    x = np.random.default_rng(0).normal(size=(2, 8, 16, 3)).astype(np.float32)
    found = np.asarray(pool_cells(jnp.asarray(x), 4))
    assert found.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(found[:, 1, 2], x[:, 2:4, 8:12].max((1, 2)))


class _Two(nn.Module):
    """Two layers of one map, one after the other or joined."""

    style: Style
    joined: bool

    @nn.compact
    def __call__(self, x, *, train):
        convs = [ConvNorm(8, self.style, groups=2, name=name) for name in ("a", "b")]
        if self.joined:
            return joined_conv_norm(convs, x, train=train)
        return jnp.concatenate([conv(x, train=train) for conv in convs], -1)


@pytest.mark.parametrize("norm_groups", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_joined_layers_equal_separate_ones(norm_groups, train):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 2, size=(2, 6, 5, 4)), jnp.float32)
    style = Style(norm_groups=norm_groups, attention_depth=1)
    one, joined = _Two(style, joined=False), _Two(style, joined=True)
    variables = jax.tree.map(
        lambda v: v + jnp.asarray(rng.uniform(0.1, 0.5, size=v.shape), jnp.float32),
        one.init(jax.random.key(0), x, train=False),
    )
    expected = one.apply(variables, x, train=train, mutable=["batch_stats"])
    found = joined.apply(variables, x, train=train, mutable=["batch_stats"])
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert bool(jax.tree.leaves(found[1])) == (norm_groups == 0)
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(f, e, atol=2e-6)
