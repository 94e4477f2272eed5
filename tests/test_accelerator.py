"""What is said of a GPU that the installed cuDNN does not run on."""

import types

import pytest

from vemseg_jax import accelerator
from vemseg_jax.accelerator import check_device, explained, uncovered
from vemseg_jax.errors import InputError

V100, T4, H100 = ("Tesla V100", (7, 0)), ("Tesla T4", (7, 5)), ("NVIDIA H100", (9, 0))


@pytest.mark.parametrize(
    ("card", "cuda", "cudnn", "fine"),
    [
        (V100, 12, (9, 10, 2), True),
        (V100, 12, (9, 11, 0), False),
        (V100, 12, (9, 28), False),
        (V100, 13, (9, 10, 2), False),
        (V100, 13, None, False),
        (V100, 12, None, True),
        (V100, 0, None, True),
        (V100, 14, (10,), True),
        (("Tesla P100", (6, 0)), 12, (9, 10, 2), True),
        (("Tesla P100", (6, 0)), 12, (9, 11), False),
        (("Tesla K80", (3, 7)), 12, (9, 5), False),
        (T4, 12, (9, 28), True),
        (T4, 13, (9, 28), True),
        (H100, 12, (9, 28), True),
        (H100, 13, (10, 0), True),
    ],
)
def test_cards_and_versions(card, cuda, cudnn, fine):
    kind, capability = card
    text = uncovered(kind, capability, cuda=cuda, cudnn=cudnn)
    assert (text is None) == fine
    if not fine:
        assert text.startswith(f"{kind} has compute capability ")
        assert "pip install '.[cuda12-v100]'" in text and "\n" not in text


def _check(monkeypatch, device, versions):
    def version(name):
        if name not in versions:
            raise accelerator.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(accelerator.jax, "devices", lambda: [device])
    monkeypatch.setattr(accelerator.importlib.metadata, "version", version)
    check_device.__wrapped__()


def _gpu(capability):
    return types.SimpleNamespace(
        platform="gpu", device_kind="Tesla V100", compute_capability=capability
    )


def test_the_device_is_looked_at(monkeypatch):
    cudnn = {"nvidia-cudnn-cu12": "9.28.1.12"}
    with pytest.raises(InputError, match=r"7\.0, .* for CUDA 12 \(version 9\.28\.1\) runs on 7\.5"):
        _check(monkeypatch, _gpu("7.0"), cudnn)
    _check(monkeypatch, _gpu("8.0"), cudnn)
    _check(monkeypatch, _gpu("7.0"), {"nvidia-cudnn-cu12": "9.10.2.21"})
    # AMD's have names; a CPU has nothing.
    _check(monkeypatch, _gpu("gfx90a"), cudnn)
    _check(monkeypatch, types.SimpleNamespace(platform="cpu", device_kind="cpu"), cudnn)


@pytest.mark.parametrize(
    "text",
    [
        "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above",
        "INTERNAL: CUDNN_STATUS_EXECUTION_FAILED in external/xla/xla/stream_executor/cuda",
        "in cudnnCreate(&handle): CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH",
    ],
)
def test_failures_of_cudnn_are_explained(text):
    assert "pip install '.[cuda12-v100]'" in explained(RuntimeError(text))
    assert explained(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")) is None
