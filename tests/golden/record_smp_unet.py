"""Records `smp_unet.npz` from segmentation_models_pytorch (0.6.0, torch 2.15 on a CPU).

    python -m tests.golden.record_smp_unet

Weights by the formula of `tests.parity.weights`. Outputs and statistics in float32; loss and
gradients in float64, so that they are known to more digits than are compared.
"""

import json
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch

from tests.parity.weights import _formula_entry

CONFIG = {
    "model": "smp_unet",
    "encoder": "resnet18",
    "encoder_depth": 4,
    "decoder_channels": [64, 32, 16, 8],
    "in_channels": 1,
    "nclasses": 1,
    "activation": "sigmoid",
    "loss": "dice_loss",
}
PHASE, GAIN = 3, 1.2
GRADIENTS = ("encoder.conv1.weight", "segmentation_head.0.weight", "decoder.blocks.1.conv1.1.bias")


def _network() -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    model = smp.Unet(
        CONFIG["encoder"],
        encoder_depth=CONFIG["encoder_depth"],
        encoder_weights=None,
        decoder_channels=CONFIG["decoder_channels"],
        in_channels=1,
        classes=1,
        activation="sigmoid",
    )
    state = {}
    for index, (name, value) in enumerate(model.state_dict().items()):
        state[name] = _formula_entry(name, tuple(value.shape), index, phase=PHASE, gain=GAIN)
    model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    return model, state


def _outputs(model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    logits = []
    hook = model.segmentation_head[0].register_forward_hook(lambda *a: logits.append(a[2]))
    prob = model(image)
    hook.remove()
    return {"prob": prob, "logits": logits[0]}


def _dice_loss(prob: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    common, total = (prob * target).sum(), (prob**2).sum() + (target**2).sum()
    return 1 - (2 * common + 1e-5) / (total + 1e-5)


def main() -> None:
    """Writes the file beside this one."""
    model, state = _network()
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 1, 64, 48)).astype(np.float32)
    mask = (rng.random((2, 1, 64, 48)) < 0.3).astype(np.uint8)
    arrays = {"config": np.asarray(json.dumps(CONFIG)), "input": image, "target/mask": mask}
    checks = {
        "first": lambda x: x.flat[0],
        "last": lambda x: x.flat[-1],
        "sum": np.sum,
        "abssum": lambda x: np.abs(x).sum(),
    }
    arrays |= {"formula/phase": np.asarray(PHASE), "formula/gain": np.asarray(GAIN)}
    arrays["formula/names"] = np.asarray(list(state))
    arrays["formula/shapes"] = np.asarray([",".join(map(str, v.shape)) for v in state.values()])
    for key, check in checks.items():
        arrays[f"formula/{key}"] = np.asarray([check(v.astype(np.float64)) for v in state.values()])

    model.eval()
    with torch.no_grad():
        for name, value in _outputs(model, torch.from_numpy(image)).items():
            arrays[f"output/{name}"] = value.numpy()
    model.train()
    with torch.no_grad():
        for name, value in _outputs(model, torch.from_numpy(image)).items():
            arrays[f"train_output/{name}"] = value.numpy()
    for name, value in model.state_dict().items():
        # Stages that the forward pass does not reach keep what they have.
        if name.endswith(("running_mean", "running_var")) and (value.numpy() != state[name]).any():
            arrays[f"train_state/{name}"] = value.numpy().copy()

    model.double()
    model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    loss = _dice_loss(model(torch.from_numpy(image).double()), torch.from_numpy(mask).double())
    loss.backward()
    grads = {k: p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None}
    norms = {name: np.sqrt(np.square(grad).sum()) for name, grad in grads.items()}
    arrays["f64/loss"] = np.asarray(loss.item())
    arrays["f64/grad_norm"] = np.sqrt(np.sum(np.square(list(norms.values()))))
    arrays["grad_l2/names"] = np.asarray(list(norms))
    arrays["grad_l2/values"] = np.asarray(list(norms.values()))
    arrays |= {f"grad/{name}": grads[name].astype(np.float32) for name in GRADIENTS}
    np.savez_compressed(Path(__file__).with_name("smp_unet.npz"), **arrays)


if __name__ == "__main__":
    main()
