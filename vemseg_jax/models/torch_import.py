"""Weights between torch's naming and layout and Flax variables, both ways."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.errors import InputError
from vemseg_jax.models import registry

Path = tuple[str, ...]
LISTED_NAMES = 8

_DOUBLE_CONV = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4"}
_RESIDUAL = {
    "bn1": "conv_block.0",
    "conv1": "conv_block.2",
    "bn2": "conv_block.3",
    "conv2": "conv_block.5",
    "skip_conv": "conv_skip.0",
    "skip_bn": "conv_skip.1",
}
_STEM = {
    "conv1": "input_layer.0",
    "bn1": "input_layer.1",
    "conv2": "input_layer.3",
    "skip_conv": "input_skip.0",
}


def _unet_module(path: Path, levels: int) -> str:
    del levels
    block = path[0]
    if block == "outc":
        return "outc.conv"
    if block == "tanh_conv":
        return block
    if block == "inc":
        return f"inc.double_conv.{_DOUBLE_CONV[path[1]]}"
    if block.startswith("down"):
        return f"{block}.maxpool_conv.1.double_conv.{_DOUBLE_CONV[path[1]]}"
    if path[1] == "up":
        return f"{block}.up"
    return f"{block}.conv.double_conv.{_DOUBLE_CONV[path[2]]}"


def _resunet_module(path: Path, levels: int) -> str:
    block = path[0]
    if block == "output":
        return "output_layer.0"
    if block == "stem":
        return _STEM[path[1]]
    if match := re.fullmatch(r"upsample(\d+)", block):
        return f"upsample_{match[1]}.upsample"
    number = int(re.sub(r"\D", "", block))
    if block.startswith("up"):
        return f"up_residual_conv{number}.{_RESIDUAL[path[1]]}"
    name = "bridge" if number == levels else f"residual_conv_{number}"
    return f"{name}.{_RESIDUAL[path[1]]}"


# From a Flax module's path to the torch module's name.
_MODULE_NAMES: Mapping[str, Callable[[Path, int], str]] = {
    "small_unet": _unet_module,
    "unet": _unet_module,
    "resunet": _resunet_module,
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(config: registry.ModelConfig, path: Path) -> str:
    """torch's `state_dict` name of the variable at `path` (without its collection)."""
    levels = len(getattr(config, "filters", ())) - 1
    module = _MODULE_NAMES[registry.model_name(config)](path[:-1], levels)
    return f"{module}.{_LEAVES[path[-1]]}"


def _is_transposed(path: Path) -> bool:
    return path[-2] == "up" or path[-2].startswith("upsample")


def _from_torch_layout(path: Path, value: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return value
    # Transposed convolutions are (in, out, kh, kw), the others (out, in, kh, kw).
    return value.transpose((0, 2, 3, 1) if _is_transposed(path) else (2, 3, 1, 0))


def _to_torch_layout(path: Path, value: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return value
    return value.transpose((0, 3, 1, 2) if _is_transposed(path) else (3, 2, 0, 1))


def variable_shapes(config: registry.ModelConfig) -> dict[str, Any]:
    """Shapes and types of a network's variables, without computing any."""
    model = registry.create_model(config)
    image = jax.ShapeDtypeStruct((1, 64, 64, config.in_channels), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), image)


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:LISTED_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def to_flax(config: registry.ModelConfig, state: Mapping[str, Any]) -> dict[str, Any]:
    """Flax variables from a torch `state_dict` given as a mapping of arrays.

    Args:
      config: the network the weights belong to.
      state: torch's names and layouts; `num_batches_tracked` is not needed and is passed over.

    Returns:
      `{"params": ..., "batch_stats": ...}` as numpy arrays.

    Raises:
      InputError: names that are missing or unknown, or shapes that differ; all are listed.
    """
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    expected = flax.traverse_util.flatten_dict(variable_shapes(config))
    names = {path: torch_name(config, path[1:]) for path in expected}
    missing, unknown = set(names.values()) - set(state), set(state) - set(names.values())
    if missing or unknown:
        found = [f"missing: {_listed(missing)}"] if missing else []
        found += [f"unknown: {_listed(unknown)}"] if unknown else []
        raise InputError(
            f"weights do not fit the network {registry.model_name(config)!r}: {'; '.join(found)}"
        )
    flat, wrong = {}, []
    for path, name in names.items():
        value = _from_torch_layout(path, np.asarray(state[name]))
        if value.shape != expected[path].shape:
            wanted = _to_torch_layout(path, np.empty(expected[path].shape, bool)).shape
            wrong.append(f"{name} is {np.shape(state[name])}, expected {wanted}")
        flat[path] = value
    if wrong:
        raise InputError(
            f"weights do not fit the network {registry.model_name(config)!r}: "
            + "; ".join(wrong[:LISTED_NAMES])
        )
    return flax.traverse_util.unflatten_dict(flat)


def to_torch(config: registry.ModelConfig, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of one collection (`params`, `batch_stats`, gradients) under torch's names.

    `tree` lacks the collection's own name; layouts become torch's.
    """
    flat = flax.traverse_util.flatten_dict(tree)
    return {
        torch_name(config, path): _to_torch_layout(path, np.asarray(value))
        for path, value in flat.items()
    }
