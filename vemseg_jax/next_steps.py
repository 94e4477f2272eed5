"""What can be typed after the quickstart."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from vemseg_jax.commands import command, install, shown

ON_CPU, ON_GPU = "small_unet", "unet"
# Crop, batch and steps of the experiment for a CPU, and those of the quickstart's own rate.
_CPU_PIXELS = 256**2 * 6 * 1500

TEXT = """
What is where in {output}:
  evaluation/summary.md           the table above
  evaluation/dice_per_slice.png   Dice along the volume, training slices marked
  evaluation/overlay_*.png        truth and prediction drawn on slices
  volume.zarr                     OME-Zarr with the labels {labels}
  training                        checkpoints, log and configuration

Look at it in a browser, and measure nuclei and nucleoli (each line can be pasted):
{look}

The same with your own data: put your folders and voxel size (z,y,x in nm) in place of those below.
The number at the end of a label's file name is that of its slice.
{own}
{note}"""


def suited_config() -> str:
    """The experiment to begin with on this machine."""
    return ON_GPU if jax.default_backend() == "gpu" else ON_CPU


def next_steps(
    output: Path,
    *,
    labels: Sequence[str],
    structures: Sequence[str],
    voxel_size: Sequence[float],
    config: str,
    has_viewer: bool,
    crop_size: int,
) -> str:
    """Commands for what was made, and for the way from files to measurements.

    Args:
      output: folder of the quickstart.
      labels: predicted labels in its volume.
      structures: that the user is shown to train on.
      voxel_size: nm, zyx, of its slices.
      config: the experiment to train.
      has_viewer: whether the viewer's package is installed.
      crop_size: of the quickstart's own training, whose log tells how fast this machine is.
    """
    volume = output / "volume.zarr"
    nucleoli = "--nucleoli=nucleoli_pred"
    viewer = [] if has_viewer else [install("view")]
    look = [
        *viewer,
        command("vemseg-view", volume),
        command("vemseg-measure", f"--volume={shown(volume)}", nucleoli),
    ]
    own = [*_training(output, structures, voxel_size, config=config), *_using(nucleoli)]
    note = "" if config == ON_GPU else _duration(output, crop_size)
    return TEXT.format(
        output=shown(output),
        labels=", ".join(labels),
        look=_indented(look),
        own=_indented(own),
        note=note,
    )


def _training(
    output: Path, structures: Sequence[str], voxel_size: Sequence[float], *, config: str
) -> list[str]:
    """From the quickstart's files to a trained network, as a stranger's files would be."""
    drawn = [f"--labels={name}={shown(output / 'labels' / name)}" for name in structures]
    quoted = ",".join(repr(name) for name in structures)
    return [
        command(
            "vemseg-convert",
            f"--images={shown(output / 'phantom' / 'images')}",
            "--output=my.zarr",
            f"--voxel_size={','.join(f'{size:g}' for size in voxel_size)}",
            *drawn,
        ),
        command("vemseg-check", "my.zarr", f"--config={config}"),
        command(
            "vemseg-train",
            f"--config={config}",
            "--config.data.volume=my.zarr",
            "--workdir=runs/my",
            f"--config.data.structures=({quoted})",
            f"--config.model.num_classes={len(structures)}",
        ),
    ]


def _using(nucleoli: str) -> list[str]:
    return [
        command("vemseg-predict", "--volume=my.zarr", "--checkpoint=runs/my"),
        command("vemseg-measure", "--volume=my.zarr", nucleoli),
        command("vemseg-view", "my.zarr"),
    ]


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}".replace("\n", "\n  ") for line in lines)


def _duration(output: Path, crop_size: int) -> str:
    """How long the training will take on this CPU, at the rate of the one that has just ended."""
    try:
        lines = (output / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        rates = [json.loads(line).get("crops_per_second") for line in lines]
    except (OSError, ValueError):
        return ""
    known = [rate for rate in rates if rate]
    if not known:
        return ""
    minutes = _CPU_PIXELS / (known[-1] * crop_size**2) / 60
    return (
        f"{ON_CPU} is the network for a machine without a GPU; at the rate of the training above it"
        f" takes\nabout {_spell(minutes)} here. On a GPU take --config={ON_GPU}.\n"
    )


def _spell(minutes: float) -> str:
    """`25 minutes`, `6 hours`."""
    if minutes < 100:
        return f"{max(1, round(minutes))} minutes"
    return f"{round(minutes / 60)} hours"
