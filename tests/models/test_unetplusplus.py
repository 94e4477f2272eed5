import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.errors import InputError
from vemseg_jax.models import registry, torch_import
from vemseg_jax.models.initial import initial_variables
from vemseg_jax.models.torch_names import is_needless, torch_name

SMALL = {"encoder": "resnet18", "encoder_depth": 4, "decoder_channels": (8, 8, 8, 8)}


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_deep_supervision_averages_its_branches(size):
    config = registry.model_config("unetplusplus", deep_supervision=True, **SMALL)
    model = registry.create_model(config)
    variables = initial_variables(model, seed=0, channels=1)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, *size, 1)), jnp.float32)
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, image)
    branches = [outputs[f"branch_{n}"] for n in (1, 2, 3)]
    assert "branch_4" not in outputs
    mean = np.mean([jax.nn.sigmoid(branch) for branch in branches], 0)
    assert mean.shape == (1, *size, 1)
    np.testing.assert_allclose(outputs["prob"], mean, atol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(outputs["logits"]), mean, atol=1e-5)


def test_stages_that_are_never_reached_are_passed_over():
    config = registry.model_config("unetplusplus", **SMALL)
    assert is_needless(config, "encoder.layer4.0.conv1.weight")
    assert is_needless(config, "encoder.fc.weight")
    assert not is_needless(config, "encoder.layer3.0.conv1.weight")
    assert not is_needless(registry.model_config("resunet"), "encoder.layer4.0.conv1.weight")
    shapes = flax.traverse_util.flatten_dict(torch_import.variable_shapes(config)["params"])
    names = {torch_name(config, path) for path in shapes}
    assert "encoder.layer3.1.conv2.weight" in names
    assert not [name for name in names if "layer4" in name]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder": "vgg16"}, r"encoder is 'vgg16'; choose from: resnet18, resnet34"),
        ({"encoder_depth": 6}, r"encoder_depth is 6; it must be one of 3, 4, 5"),
        ({"encoder_depth": 3}, r"decoder_channels is .*; it must hold 3 positive numbers"),
    ],
)
@pytest.mark.parametrize("name", ["unetplusplus", "smp_unet"])
def test_bad_options_name_the_field(name, options, message):
    with pytest.raises(InputError, match=message):
        registry.create_model(registry.model_config(name, **options))
