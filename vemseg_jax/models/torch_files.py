"""Reads weights from the files that torch users have."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vemseg_jax.commands import install
from vemseg_jax.errors import InputError
from vemseg_jax.paths import local_path

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
# Keys under which training scripts keep the weights beside other things.
_NESTED = ("state_dict", "model", "model_state_dict")
# What wrappers put before every name.
_WRAPPERS = ("module.", "_orig_mod.")


def _unwrapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in _NESTED:
        if isinstance(values.get(key), Mapping):
            return _unwrapped(values[key])
    return values


def _plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in _WRAPPERS:
        if values and all(name.startswith(prefix) for name in values):
            return _plain_names({name.removeprefix(prefix): v for name, v in values.items()})
    return dict(values)


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading {path.suffix} files needs torch ({install('torch')}), or save "
            "the weights as .safetensors or .npz"
        ) from error
    try:
        # Tensors and plain containers only: such a file cannot run code.
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be read as weights of torch ({reason})") from error
    if not isinstance(values, Mapping):
        raise InputError(f"{path} holds a {type(values).__name__}; save model.state_dict() instead")
    tensors = {k: v for k, v in _unwrapped(values).items() if isinstance(v, torch.Tensor)}
    return {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items()}


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read as safetensors ({error})") from error


def _read_npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as .npz ({error})") from error


def read_state(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file under torch's `state_dict` names.

    Args:
      path: `.safetensors`, `.npz`, or what torch saves (needs torch): a `state_dict`, or a
        dictionary that holds one under `state_dict` or `model`. Prefixes that wrappers add to
        every name (`module.`) are removed.

    Raises:
      InputError: no such file, a type that is not known, or a file that cannot be read.
    """
    path = local_path(path, flag="--weights")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        values = _read_safetensors(path)
    elif path.suffix == ".npz":
        values = _read_npz(path)
    elif path.suffix in TORCH_SUFFIXES:
        values = _read_torch(path)
    else:
        raise InputError(
            f"{path}: weights are read from {', '.join(('.safetensors', '.npz', *TORCH_SUFFIXES))}"
        )
    if not values:
        raise InputError(f"{path} holds no weights")
    return {name: np.asarray(value) for name, value in _plain_names(values).items()}
