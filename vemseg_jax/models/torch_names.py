"""torch's names of the variables of every network, from their Flax paths.

The networks whose Flax modules are named after torch's need only a few substitutions: their path,
joined by dots, is torch's name once an index `_0` at the end of a part reads `.0`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from vemseg_jax.models import registry

Path = tuple[str, ...]

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


def _unet_module(path: Path, config: Any) -> str:
    del config
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


def _resunet_module(path: Path, config: Any) -> str:
    block = path[0]
    if block == "output":
        return "output_layer.0"
    if block == "stem":
        return _STEM[path[1]]
    if match := re.fullmatch(r"upsample(\d+)", block):
        return f"upsample_{match[1]}.upsample"
    levels = len(config.filters) - 1
    number = int(re.sub(r"\D", "", block))
    if block.startswith("up"):
        return f"up_residual_conv{number}.{_RESIDUAL[path[1]]}"
    name = "bridge" if number == levels else f"residual_conv_{number}"
    return f"{name}.{_RESIDUAL[path[1]]}"


def _indexed(*containers: str) -> Callable[[Path, Any], str]:
    """Names in which `container_3` stands for torch's `container.3`, for these containers."""
    pattern = re.compile(rf"\b({'|'.join(containers)})_(\d+)\b")

    def name(path: Path, config: Any) -> str:
        del config
        return pattern.sub(r"\1.\2", ".".join(path))

    return name


_xnet_module = _indexed("convs_dn", "convs_up", "pools", "UpCombs", "convs", "logits")


def _senformer_module(path: Path, config: Any) -> str:
    del config
    name = re.sub(r"\b(lateral_convs|fpn_swins|learners|layers)_(\d+)", r"\1.\2", ".".join(path))
    name = re.sub(r"_(blocks|downsample)\b", r".\1", name)
    name = re.sub(r"\bblocks_(\d+)|_blocks_(\d+)", lambda m: f".blocks.{m[1] or m[2]}", name)
    return re.sub(r"(fpn_swins\.\d+)", r"\1.swin_blocks.blocks.0", name)


def _smp_module(path: Path, config: Any) -> str:
    del config
    name = ".".join(path)
    name = re.sub(r"\b(layer\d|downsample|conv[12]|segmentation_head)_(\d)\b", r"\1.\2", name)
    return name.replace("decoder_blocks_", "decoder.blocks.").replace("blocks_x_", "blocks.x_")


# From a Flax module's path to the torch module's name.
_MODULE_NAMES: Mapping[str, Callable[[Path, Any], str]] = {
    "small_unet": _unet_module,
    "unet": _unet_module,
    "resunet": _resunet_module,
    "smp_unet": _smp_module,
    "unetplusplus": _smp_module,
    "fractal_resnet": _xnet_module,
    "ceecnet_v1": _xnet_module,
    "ceecnet_v2": _xnet_module,
    "senformer": _senformer_module,
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Entries of a state_dict that no network needs: counters, and tables the architecture defines.
_NEVER_NEEDED = ("num_batches_tracked", "relative_position_index")


def torch_name(config: registry.ModelConfig, path: Path) -> str:
    """torch's `state_dict` name of the variable at `path` (without its collection)."""
    module = _MODULE_NAMES[registry.model_name(config)](path[:-1], config)
    leaf = _LEAVES.get(path[-1], path[-1])
    return f"{module}.{leaf}" if module else leaf


def encoder_prefix(config: registry.ModelConfig) -> str | None:
    """What stands before the names of weights that were trained on ImageNet, None without any."""
    if hasattr(config, "encoder_depth"):
        return "encoder."
    return "backbone." if registry.model_name(config) == "senformer" else None


def is_classifier(name: str) -> bool:
    """Whether an entry of an ImageNet checkpoint belongs to its classifier, or is a mask."""
    return name.startswith(("fc.", "head.", "norm.")) or name.endswith("attn_mask")


def is_needless(config: registry.ModelConfig, name: str) -> bool:
    """Whether an entry of the reference's `state_dict` has no counterpart here, rightly.

    Besides counters and tables those are the stages of a ResNet encoder, and its classifier, that
    the forward pass never reaches.
    """
    if name.endswith(_NEVER_NEEDED):
        return True
    if not hasattr(config, "encoder_depth"):
        return False
    stage = re.match(r"encoder\.(?:layer(\d)|fc)\.", name)
    if stage is None:
        return False
    return stage[1] is None or int(stage[1]) >= config.encoder_depth
