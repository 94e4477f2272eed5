"""The same training step in torch, with the networks of segmentation_models_pytorch.

In torch's own layout and in `channels_last`, which its convolutions of tensor cores and oneDNN are
made for and which our networks have too; the latter compiled as well.
"""

import dataclasses
import gc
import time
from typing import Any

from vemseg_jax.config import ExperimentConfig, is_pair
from vemseg_jax.models.smp_unet import SmpUNetConfig
from vemseg_jax.models.unetplusplus import UNetPlusPlusConfig

# Name in tables -> channels_last, torch.compile.
FORMS = {
    "torch, eager": (False, False),
    "torch, eager, channels last": (True, False),
    "torch, compiled, channels last": (True, True),
}
# Steps before those that are timed: the first compiles, the second still settles.
WARM = 2
ARCHITECTURES = {UNetPlusPlusConfig: "UnetPlusPlus", SmpUNetConfig: "Unet"}


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds of each warm step and of the first, which compiles; GiB on a GPU at the most."""

    times: list[float]
    first: float
    parameters: int
    memory_gib: float | None
    version: str


def require() -> None:
    """Raises ImportError, saying what to install, where the peer is not there."""
    try:
        import segmentation_models_pytorch  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--peer=torch: {error}; pip install '.[peer]'") from error


def has_peer(config: ExperimentConfig) -> bool:
    """Whether the package has this network."""
    return type(config.model) in ARCHITECTURES


def _network(config: ExperimentConfig) -> Any:
    import segmentation_models_pytorch as smp

    model = config.model
    return getattr(smp, ARCHITECTURES[type(model)])(
        model.encoder,
        encoder_depth=model.encoder_depth,
        decoder_channels=model.decoder_channels,
        encoder_weights=None,
        in_channels=1,
        activation="sigmoid",
    )


def _dice(prob: Any, truth: Any, smooth: float) -> Any:
    common, total = (prob * truth).sum(), (prob**2).sum() + (truth**2).sum()
    return 1 - (2 * common + smooth) / (total + smooth)


class _Step:
    """Forward, losses, backward, clip and update of one network or of a pair."""

    def __init__(self, config: ExperimentConfig, *, channels_last: bool, compiled: bool):
        import torch

        self.torch, self.config = torch, config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, config.train.precision)
        count = 2 if is_pair(config) else 1
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.networks = [
            _network(config).to(self.device, memory_format=layout) for _ in range(count)
        ]
        self.called = [torch.compile(n) if compiled else n for n in self.networks]
        self.optimizers = [torch.optim.Adam(n.parameters(), 1e-3) for n in self.networks]
        scaled = config.train.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device, enabled=scaled)
        self.smooth = 1.0 if config.loss.name == "dice_coef" else 1e-5
        batch, size = config.train.batch_size // count, config.data.crop_size
        self.labelled, self.unlabelled = (
            torch.randn(batch, 1, size, size, device=self.device).to(memory_format=layout)
            for _ in range(2)
        )
        self.target = (self.labelled > 0).float()
        self.mask = torch.zeros(batch, 1, size, size, device=self.device)
        self.mask[..., : size // 2, : size // 2] = 1

    def _pair_loss(self) -> Any:
        torch = self.torch
        if self.config.cps.method == "cps_cutmix":
            half = len(self.labelled) // 2
            views = [
                torch.cat([self.labelled[part], self.unlabelled[part]])
                for part in (slice(None, half), slice(half, None))
            ]
            with torch.no_grad():
                seen = [[network(view) for network in self.called] for view in views]
            mask = self.mask[: len(views[0])]
            mixed = (1 - mask) * views[0] + mask * views[1]
            taught = [(1 - mask) * a + mask * b for a, b in zip(*seen, strict=True)]
            students = [network(mixed) for network in self.called]
            own = [network(self.labelled) for network in self.called]
        else:
            own = [network(self.labelled) for network in self.called]
            more = [network(self.unlabelled) for network in self.called]
            students = [torch.cat([a, b]) for a, b in zip(own, more, strict=True)]
            taught = [prob.detach() for prob in students]
        labels = [(prob > 0.5).float() for prob in taught]
        loss = sum(_dice(prob.float(), self.target, self.smooth) for prob in own)
        for network in (0, 1):
            loss = loss + _dice(students[network].float(), labels[1 - network], self.smooth)
        return loss

    def __call__(self) -> None:
        torch = self.torch
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        narrow = self.dtype != torch.float32
        with torch.autocast(self.device, dtype=self.dtype if narrow else None, enabled=narrow):
            if len(self.networks) == 2:
                loss = self._pair_loss()
            else:
                loss = _dice(self.called[0](self.labelled).float(), self.target, self.smooth)
        self.scaler.scale(loss).backward()
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            self.scaler.unscale_(optimizer)
            if limit := self.config.optimizer.clip_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), limit)
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.device == "cuda":
            torch.cuda.synchronize()


def time_torch(
    config: ExperimentConfig, *, channels_last: bool, compiled: bool, repeats: int
) -> Timed:
    """Times the step of a configuration, and leaves a GPU's memory free for who comes next."""
    import torch

    # What both do by themselves with float32 on a GPU that has TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step, times = _Step(config, channels_last=channels_last, compiled=compiled), []
    for _ in range(WARM + repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in step.networks[0].parameters())
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    del step
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return Timed(times[WARM:], times[0], parameters, memory, torch.__version__)
