"""Whether the installed cuDNN runs on the GPU that is there."""

import functools
import importlib.metadata
import re

import jax

from vemseg_jax.errors import InputError

Version = tuple[int, ...]
# From a version on: the oldest compute capability that the builds for a CUDA version run on, newest
# first. Volta (V100) has 7.0, Turing (T4) 7.5, Pascal (P100) 6.0.
_OLDEST: dict[int, tuple[tuple[Version, Version], ...]] = {
    12: (((9, 11), (7, 5)), ((9, 0), (5, 0))),
    13: (((0,), (7, 5)),),
}
# What jax says of it once a network runs.
_SAID = re.compile(
    r"CUDNN_STATUS_\w+|DNN library initialization failed|cuDNN .{0,40}(not supported|too old)",
    re.IGNORECASE,
)


def uncovered(kind: str, capability: Version, *, cuda: int, cudnn: Version | None) -> str | None:
    """Why a GPU cannot be used and what to install instead; None if it can.

    Args:
      kind: of the GPU, as jax names it.
      capability: its compute capability, such as (7, 0).
      cuda: major version that the installed libraries are built for.
      cudnn: version of cuDNN; None if it is not known.
    """
    builds = [oldest for since, oldest in _OLDEST.get(cuda, ()) if (cudnn or (0,)) >= since]
    if not builds or capability >= (oldest := builds[0]):
        return None
    said = "" if cudnn is None else f" (version {_text(cudnn)})"
    return (
        f"{kind} has compute capability {_text(capability)}, and the installed cuDNN for CUDA"
        f" {cuda}{said} runs on {_text(oldest)} and newer; for a V100: pip install"
        " '.[cuda12-v100]' in a new environment; JAX_PLATFORMS=cpu does without the card"
    )


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def explained(error: Exception) -> str | None:
    """What a failure of cuDNN in the middle of a computation comes from; None for any other."""
    found = _SAID.search(str(error))
    if found is None:
        return None
    return (
        f"the GPU's library cuDNN fails ({found.group()}): it does not run on this card, or finds"
        " no memory; for a V100: pip install '.[cuda12-v100]' in a new environment; for others see"
        " whether another program holds the GPU's memory (nvidia-smi)"
    )


def installed_cudnn() -> tuple[int, Version | None]:
    """Major version of CUDA and version of cuDNN, from the packages; 0 and None without."""
    for cuda in (13, 12):
        try:
            text = importlib.metadata.version(f"nvidia-cudnn-cu{cuda}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return cuda, tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    return 0, None


@functools.cache
def check_device() -> None:
    """Looks at the GPU before work begins; fine without one, or where its kind is not known.

    Raises:
      InputError: the installed cuDNN does not run on it.
    """
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", None)
    if device.platform != "gpu" or not re.fullmatch(r"\d+\.\d+", str(capability)):
        return
    cuda, cudnn = installed_cudnn()
    version = tuple(int(part) for part in str(capability).split("."))
    if problem := uncovered(device.device_kind, version, cuda=cuda, cudnn=cudnn):
        raise InputError(problem)
