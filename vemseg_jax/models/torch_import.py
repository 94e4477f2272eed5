"""Weights between torch's naming and layout and Flax variables, both ways."""

import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vemseg_jax.errors import InputError
from vemseg_jax.models import registry
from vemseg_jax.models.torch_names import (
    Path,
    encoder_prefix,
    is_classifier,
    is_needless,
    torch_name,
)

LISTED_NAMES = 8


def _is_transposed(path: Path) -> bool:
    return path[-2] == "up" or path[-2].startswith("upsample")


def _from_torch_layout(path: Path, value: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel" or value.ndim not in (2, 4):
        return value
    if value.ndim == 2:
        return value.T
    # Transposed convolutions are (in, out, kh, kw), the others (out, in, kh, kw).
    return value.transpose((0, 2, 3, 1) if _is_transposed(path) else (2, 3, 1, 0))


def _to_torch_layout(path: Path, value: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return value
    if value.ndim == 2:
        return value.T
    return value.transpose((0, 3, 1, 2) if _is_transposed(path) else (3, 2, 0, 1))


def variable_shapes(config: registry.ModelConfig) -> dict[str, Any]:
    """Shapes and types of a network's variables, without computing any."""
    model = registry.create_model(config)
    image = jax.ShapeDtypeStruct((1, 64, 64, config.in_channels), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), image)


def _one_channel(path: Path, value: np.ndarray, expected: Any) -> np.ndarray:
    """Sums the colours of a first kernel where the network sees grey: the answer to grey input."""
    if path[-1] == "kernel" and value.ndim == 4 and value.shape[2] == 3 and expected.shape[2] == 1:
        return value.sum(2, keepdims=True)
    return value


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:LISTED_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def to_flax(config: registry.ModelConfig, state: Mapping[str, Any]) -> dict[str, Any]:
    """Flax variables from a torch `state_dict` given as a mapping of arrays.

    Args:
      config: the network the weights belong to.
      state: torch's names and layouts; what no network needs, such as `num_batches_tracked`, is
        passed over. A first kernel for three colours is summed for a network that sees grey.

    Returns:
      `{"params": ..., "batch_stats": ...}` as numpy arrays.

    Raises:
      InputError: names that are missing or unknown, or shapes that differ; all are listed.
    """
    state = {k: v for k, v in state.items() if not is_needless(config, k)}
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
        value = _one_channel(path, value, expected[path])
        if value.shape != expected[path].shape:
            wanted = _to_torch_layout(path, np.empty(expected[path].shape, bool)).shape
            wrong.append(f"{name} is {np.shape(state[name])}, expected {wanted}")
        flat[path] = value
    if wrong:
        raise InputError(
            f"weights do not fit the network {registry.model_name(config)!r}: "
            + "; ".join(wrong[:LISTED_NAMES])
        )
    # A network without BatchNorm has no statistics, but every network has the collection.
    return {"batch_stats": {}, **flax.traverse_util.unflatten_dict(flat)}


def encoder_to_flax(
    config: registry.ModelConfig, state: Mapping[str, Any], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Puts the weights of an ImageNet classifier into a network's encoder.

    Args:
      config: a network with a ResNet encoder or a Swin backbone.
      state: the classifier's `state_dict`, torchvision's names for ResNet, the original
        repository's for Swin; the classifier itself is passed over.
      variables: of the network; what the classifier lacks is taken from there.

    Returns:
      `{"params": ..., "batch_stats": ...}` as numpy arrays.

    Raises:
      InputError: a network without such an encoder, or names and shapes that do not fit.
    """
    prefix = encoder_prefix(config)
    if prefix is None:
        raise InputError(
            f"network {registry.model_name(config)!r} has no encoder that was trained on ImageNet"
        )
    given = {prefix + name: value for name, value in state.items() if not is_classifier(name)}
    own = to_torch(config, variables["params"]) | to_torch(config, variables["batch_stats"])
    # The backbone's norms of each stage are the segmentation network's own.
    optional = {name for name in own if re.fullmatch(r"backbone\.norm\d\.\w+", name)}
    kept = {n: v for n, v in own.items() if not n.startswith(prefix) or n in optional}
    return to_flax(config, kept | given)


def to_torch(config: registry.ModelConfig, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of one collection (`params`, `batch_stats`, gradients) under torch's names.

    `tree` lacks the collection's own name; layouts become torch's.
    """
    flat = flax.traverse_util.flatten_dict(tree)
    return {
        torch_name(config, path): _to_torch_layout(path, np.asarray(value))
        for path, value in flat.items()
    }
