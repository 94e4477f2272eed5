"""The weights of a golden file: stored, or rebuilt from its formula."""

from collections.abc import Mapping

import numpy as np

from vemseg_jax.models import registry

_MASK = (1 << 64) - 1


def _hash_uniform(count: int, index: int, phase: int) -> np.ndarray:
    """`count` numbers in [0, 1) from a 64-bit mixing hash of the element, entry and phase."""
    offset = (phase * 0x9E3779B97F4A7C15 + (index + 1) * 0xD1B54A32D192ED03) & _MASK
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x2545F4914F6CDD1D)
    z = z + np.uint64(offset)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def _formula_entry(
    name: str, shape: tuple[int, ...], index: int, *, phase: int, gain: float
) -> np.ndarray:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.asarray(5, np.int64)
    u = _hash_uniform(int(np.prod(shape, dtype=np.int64)), index, phase)
    v = 2 * u - 1
    if leaf == "running_mean":
        value = 0.3 * v
    elif leaf == "running_var":
        value = 0.5 + u
    elif leaf.startswith("gamma"):
        value = (0.25 + 0.5 * u) * (-1 if index % 2 else 1)
    elif leaf == "relative_position_bias_table":
        value = 0.5 * v
    elif leaf == "queries":
        value = v
    elif len(shape) >= 2:
        value = v * np.sqrt(3 * gain / np.prod(shape[1:]))
    elif leaf == "weight":
        value = 1 + 0.5 * v
    else:
        value = 0.2 * v
    if ".norm_embs." in name:
        value = 0.1 * value
    return value.astype(np.float32).reshape(shape)


def formula_state(golden: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """torch's `state_dict` by the formula, checked against what the file records of each entry."""
    head = f"{prefix}formula/"
    phase, gain = int(golden[head + "phase"]), float(golden[head + "gain"])
    checks = {
        "first": lambda x: x.flat[0],
        "last": lambda x: x.flat[-1],
        "sum": np.sum,
        "abssum": lambda x: np.abs(x).sum(),
    }
    state = {}
    names, shapes = golden[head + "names"], golden[head + "shapes"]
    for index, (name, text) in enumerate(zip(names, shapes, strict=True)):
        if name.endswith("relative_position_index"):
            continue  # an index table that the architecture defines
        shape = tuple(int(n) for n in str(text).split(",") if n)
        value = _formula_entry(str(name), shape, index, phase=phase, gain=gain)
        for key, check in checks.items():
            found, expected = check(value.astype(np.float64)), golden[head + key][index]
            if not np.isclose(found, expected, rtol=1e-6, atol=1e-6):
                raise ValueError(f"{key} of {name} is {found}, expected {expected}")
        state[str(name)] = value
    return state


def golden_state(golden: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """The `state_dict` of a golden file, or of its network `prefix` (such as `net1/`)."""
    head = f"{prefix}state/"
    stored = {k.removeprefix(head): golden[k] for k in golden if k.startswith(head)}
    return stored or formula_state(golden, prefix)


def small_unet_config(state: Mapping[str, np.ndarray]) -> registry.ModelConfig:
    """The configuration of a SmallUNet, read off its weights."""
    first, last = state["inc.double_conv.0.weight"], state["outc.conv.weight"]
    return registry.model_config(
        "small_unet",
        in_channels=first.shape[1],
        base_channels=first.shape[0],
        num_classes=last.shape[0],
        bilinear="up1.up.weight" not in state,
    )
