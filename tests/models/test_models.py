"""What every registered network must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vemseg_jax.errors import InputError
from vemseg_jax.models import registry, torch_import
from vemseg_jax.models.initial import initial_variables

RESNET = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": (8, 8, 8)}
XNET = {
    "filters": 8, "depth": 2, "psp_depth": 1, "heads": 1, "norm_groups": 2, "attention_depth": 1
}  # fmt: skip
SMALL = {
    "small_unet": {"base_channels": 4},
    "unet": {"base_channels": 4},
    "resunet": {"filters": (4, 6, 8, 8, 8)},
    "smp_unet": RESNET,
    "unetplusplus": RESNET,
    "fractal_resnet": XNET,
    "ceecnet_v1": XNET | {"depth": 1},
    "ceecnet_v2": XNET,
    "senformer": {"backbone": "nano", "features": 16, "heads": 2, "branch_depth": 1},
}
# With four channels to a convolution a rounding error is a quarter of what it sees.
LESS_NARROW = {"filters": 16, "depth": 1, "heads": 2, "norm_groups": 4, "attention_depth": 5}
SIZE = (45, 38)
# What networks whose classes exclude each other need.
CLASSES = {"senformer": {"num_classes": 2}}
REFERENCE_PARAMETERS = {
    "small_unet": ({"base_channels": 16}, 269_009),
    "unet": ({}, 17_266_306),
    "resunet": ({}, 32_974_401),
    "smp_unet": ({}, 24_430_097),
    "unetplusplus": ({}, 26_072_337),
    "fractal_resnet": ({}, 406_843),
    "ceecnet_v1": ({}, 741_309),
    "ceecnet_v2": ({}, 1_189_095),
    "senformer": ({}, 141_785_050),
}


def _image(b, h, w, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(b, h, w, 1)), jnp.float32)


@functools.cache
def _variables(model):
    variables = initial_variables(model, seed=0, channels=1)

    def open_gates(path, value):
        # Attention gates start at 0 and would hide what is behind them.
        return value + 0.5 if path[-1].key.startswith("gamma") else value

    return jax.tree_util.tree_map_with_path(open_gates, variables)


def test_every_network_is_tested_here():
    assert set(SMALL) == set(registry.MODELS) == set(REFERENCE_PARAMETERS)


@pytest.mark.parametrize("name", SMALL)
def test_parameter_count_is_the_references(name):
    options, expected = REFERENCE_PARAMETERS[name]
    assert _count(name, **options) == expected


def _count(name, **options):
    shapes = torch_import.variable_shapes(registry.model_config(name, **options))
    return sum(np.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("unetplusplus", {"encoder_depth": 3, "decoder_channels": (128, 64, 16)}, 2_017_937),
        ("senformer", {"backbone": "small"}, 163_102_954),
        ("fractal_resnet", {"up_heads": "own"}, 427_003),
        ("ceecnet_v1", {"up_heads": "own"}, 776_841),
        ("ceecnet_v2", {"up_heads": "own"}, 1_237_731),
        ("fractal_resnet", {"filters": 32, "depth": 6, "heads": 4}, 18_199_919),
        ("ceecnet_v1", {"filters": 32, "depth": 6, "heads": 4}, 34_688_685),
        ("ceecnet_v2", {"filters": 32, "depth": 6, "heads": 4}, 58_964_079),
    ],
)
def test_parameter_counts_of_other_configurations(name, options, expected):
    assert _count(name, **options) == expected


@functools.cache
def _outputs(name, dtype="float32"):
    """Configuration and outputs of a network of several classes at an odd size."""
    options = SMALL[name] | (LESS_NARROW if "psp_depth" in SMALL[name] else {})
    config = registry.model_config(name, num_classes=3 + (name in CLASSES), **options)
    model = registry.create_model(config, dtype=dtype)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    return config, apply(_variables(registry.create_model(config)), _image(2, *SIZE))


@pytest.mark.parametrize("name", SMALL)
def test_output_has_the_inputs_size(name):
    config, outputs = _outputs(name)
    shape = (2, *SIZE, config.num_classes)
    assert outputs["prob"].shape == outputs["logits"].shape == shape
    assert outputs["prob"].dtype == jnp.float32
    if config.exclusive:
        np.testing.assert_allclose(outputs["prob"].sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(outputs["prob"], jnp.exp(outputs["logits"]), atol=1e-6)
    else:
        np.testing.assert_allclose(outputs["prob"], jax.nn.sigmoid(outputs["logits"]), atol=1e-6)


@pytest.mark.parametrize("bilinear", [True, False])
@pytest.mark.parametrize("name", ["small_unet", "unet"])
def test_both_ways_of_upsampling(name, bilinear):
    config = registry.model_config(name, bilinear=bilinear, **SMALL[name])
    model = registry.create_model(config)
    variables = _variables(model)
    assert model.apply(variables, _image(1, 37, 32), train=False)["prob"].shape == (1, 37, 32, 1)
    names = torch_import.to_torch(config, variables["params"])
    assert ("up1.up.weight" in names) != bilinear


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter_and_statistics_move(name):
    model = registry.create_model(registry.model_config(name, **SMALL[name]))
    variables = _variables(model)

    def loss_of(params):
        outputs, updated = model.apply(
            {**variables, "params": params},
            _image(2, 32, 32),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        heads = [head for key, head in outputs.items() if key != "prob"]
        # Weights that differ from pixel to pixel: a softmax's plain sum has no gradient.
        weights = np.linspace(-1, 1, 7)
        loss = sum(jnp.sum(jnp.resize(weights, head.shape) * jnp.square(head)) for head in heads)
        return loss, updated.get("batch_stats", {})

    grads, statistics = jax.jit(jax.grad(loss_of, has_aux=True))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        # A bias straight before a BatchNorm has no gradient but rounding.
        if "bias" not in str(path):
            assert np.abs(grad).max() > 0, path
    if not variables["batch_stats"]:
        return
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), variables["batch_stats"], statistics)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2e-2), ("float16", 4e-3)])
def test_narrow_types_stay_close_with_float32_parameters(name, dtype, tolerance):
    config, outputs = _outputs(name)
    expected, found = outputs["prob"], _outputs(name, dtype)[1]["prob"]
    narrow = registry.create_model(config, dtype=dtype)
    key, image = jax.random.key(0), _image(1, 32, 32)
    shapes = jax.eval_shape(lambda x: narrow.init(key, x, train=False), image)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert np.any(found != expected)


def test_a_unet_has_the_levels_that_are_asked_for():
    assert _count("small_unet", levels=4) > _count("small_unet") > _count("small_unet", levels=1)
    with pytest.raises(InputError, match=r"model.levels is 0; it must be at least 1"):
        registry.create_model(registry.model_config("unet", levels=0))


def test_unknown_names_list_the_choices():
    with pytest.raises(InputError, match=r"'unnet'.*resunet, senformer, small_unet"):
        registry.model_config("unnet")
    with pytest.raises(InputError, match=r"'filter'.*filters"):
        registry.model_config("resunet", filter=3)
    with pytest.raises(InputError, match=r"dict.*ResUNetConfig"):
        registry.create_model({})


@pytest.mark.parametrize("name", SMALL)
def test_configuration_survives_json(name):
    import json

    config = registry.model_config(name, **SMALL[name])
    values = json.loads(json.dumps(registry.model_to_dict(config)))
    assert registry.model_from_dict(values) == config


@pytest.mark.parametrize("name", SMALL)
def test_weights_go_to_torch_and_back(name):
    config = registry.model_config(name, **SMALL[name])
    variables = _variables(registry.create_model(config))
    state = torch_import.to_torch(config, variables["params"])
    state |= torch_import.to_torch(config, variables["batch_stats"])
    back = torch_import.to_flax(config, {**state, "x.num_batches_tracked": 5})
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_weights_that_do_not_fit_are_listed():
    config = registry.model_config("resunet", **SMALL["resunet"])
    variables = _variables(registry.create_model(config))
    state = torch_import.to_torch(config, variables["params"])
    state |= torch_import.to_torch(config, variables["batch_stats"])
    wrong = {**state, "extra.weight": np.zeros(3)}
    del wrong["bridge.conv_block.0.running_mean"]
    with pytest.raises(InputError, match=r"missing: bridge.*running_mean; unknown: extra.weight"):
        torch_import.to_flax(config, wrong)
    state["output_layer.0.weight"] = np.zeros((2, 4, 1, 1))
    with pytest.raises(InputError, match=r"output_layer.0.weight is \(2, 4, 1, 1\), expected"):
        torch_import.to_flax(config, state)
