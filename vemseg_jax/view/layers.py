"""What a viewer shows of a volume: the image and its labels, their order, colours and contrast."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorstore as ts

from vemseg_jax.data.store import ome
from vemseg_jax.data.store.colours import Rgb, unlike
from vemseg_jax.data.store.downsample import FACTOR
from vemseg_jax.data.store.label_names import names_prediction
from vemseg_jax.data.store.label_writer import ANNOTATION, PREDICTION, PROBABILITY
from vemseg_jax.data.store.volume import FULL, LABELS, TRAINING, Volume, array_path, open_array
from vemseg_jax.errors import InputError
from vemseg_jax.view.pyramid import Pyramid, cache, cached

IMAGE = "image"
_ORDER = (PROBABILITY, ANNOTATION, PREDICTION)


@dataclass(frozen=True)
class LayerContent:
    """One layer.

    Attributes:
      name: "image" or the name of the label.
      kind: "image", or the kind that the label records.
      pyramid: its pixels, `[z, y, x]`.
      voxel_size: nm, zyx, of the finest level of the pyramid.
      has_training: whether the pyramid has a training level below the finest.
      colour: "#rrggbb" of value 1; "" for what is shown in grey or in a colour map.
      visible: whether it is shown from the start.
    """

    name: str
    kind: str
    pyramid: Pyramid
    voxel_size: tuple[float, float, float]
    has_training: bool
    colour: str
    visible: bool

    @property
    def is_segmentation(self) -> bool:
        """Whether the pixels are classes, not grey values or probabilities."""
        return self.kind not in (IMAGE, PROBABILITY)


def contrast(volume: Volume) -> tuple[float, float]:
    """Grey values shown as black and white: three standard deviations around the mean.

    Both are those of all pixels of the volume, from the recorded statistics of its slices.
    """
    mean = volume.slice_mean.mean()
    variance = (volume.slice_std**2 + (volume.slice_mean - mean) ** 2).mean()
    low, high = mean + np.array((-3, 3)) * np.sqrt(variance)
    if not low < high:
        return 0.0, float(volume.dtype_max)
    return (
        float(np.floor(max(low, 0) * volume.dtype_max)),
        float(np.ceil(min(high, 1) * volume.dtype_max)),
    )


def start_slice(volume: Volume, layers: Sequence[LayerContent], z: int | None) -> int:
    """The slice that is shown first: `z`, or the labelled one nearest to the middle.

    Raises:
      InputError: the volume has no slice `z`.
    """
    depth = volume.shape[0]
    if z is not None:
        if not 0 <= z < depth:
            raise InputError(f"--z={z}: {volume.path} has slices 0 to {depth - 1}")
        return z
    middle = depth // 2
    shown = [layer.name for layer in layers if layer.visible and layer.is_segmentation]
    labelled = {n for name in shown for n in volume.labelled_slices(name) if 0 <= n < depth}
    return min(labelled, key=lambda n: (abs(n - middle), n), default=middle)


def _pick(names: Sequence[str], wanted: Sequence[str] | None, volume: Volume) -> list[str]:
    if not wanted:
        return [IMAGE, *names]
    known = [IMAGE, *names]
    for name in wanted:
        if name not in known:
            raise InputError(
                f"--layers: found {name!r}; the layers of {volume.path} are: {', '.join(known)}"
            )
        if wanted.count(name) > 1:
            raise InputError(f"--layers: {name!r} is given twice; once is enough")
    return [name for name in known if name in wanted]


def _colours(volume: Volume, names: Sequence[str]) -> dict[str, str]:
    """The recorded colour of every label, or one unlike all before it where those look alike."""
    taken: dict[str, Rgb] = {}
    for name in names:
        r, g, b, _ = ome.label_colour(ome.read_group(volume.path / LABELS / name), name)
        taken[name] = unlike((r, g, b), taken.values())
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in taken.items()}


def _label(
    volume: Volume, name: str, *, colour: str, visible: bool, context: ts.Context
) -> LayerContent:
    info = volume.label_info(name)
    kind = str(info.get("kind", ANNOTATION))
    found = {array_path(level, volume.downsample) for level in info["levels"]}
    paths = [
        path
        for path in (array_path(level, volume.downsample) for level in (FULL, TRAINING))
        if path in found
    ]
    paths = list(dict.fromkeys(paths))
    arrays = [cached(open_array(volume.path / LABELS / name / p), context) for p in paths]
    factor = FACTOR if paths[0] != array_path(FULL, volume.downsample) else 1
    z, y, x = volume.voxel_size
    return LayerContent(
        name=name,
        kind=kind,
        pyramid=Pyramid(
            arrays[0], arrays[1] if len(arrays) > 1 else None, average=kind == PROBABILITY
        ),
        voxel_size=(z, y * factor, x * factor),
        has_training=len(arrays) > 1,
        colour=colour,
        visible=visible,
    )


def layers_of(volume: Volume, wanted: Sequence[str] | None = None) -> list[LayerContent]:
    """The layers of a volume, lowest first: image, probabilities, annotations, predictions, rest.

    Args:
      volume: an open volume.
      wanted: names, "image" among them; these are all shown. By default every one is a layer,
        and shown are the image, the annotations and the predictions whose names end in _pred.

    Raises:
      InputError: there is no such layer, or a label cannot be read.
    """
    kinds = {name: volume.label_info(name).get("kind", ANNOTATION) for name in volume.label_names}
    rank = {kind: n for n, kind in enumerate(_ORDER)}
    names = sorted(kinds, key=lambda name: (rank.get(kinds[name], len(rank)), name))
    colours = _colours(volume, [name for name in names if kinds[name] != PROBABILITY])
    context, layers = cache(), []
    for name in _pick(names, wanted, volume):
        if name == IMAGE:
            fine, training = (cached(volume.image(level), context) for level in (FULL, TRAINING))
            has_training = volume.downsample != 1
            pyramid = Pyramid(fine, training if has_training else None, average=True)
            layers.append(
                LayerContent(IMAGE, IMAGE, pyramid, volume.voxel_size, has_training, "", True)
            )
            continue
        # Of predictions those that vemseg-predict writes unless told otherwise.
        default = kinds[name] == ANNOTATION or (
            kinds[name] == PREDICTION and names_prediction(name)
        )
        visible = bool(wanted) or default
        layers.append(
            _label(volume, name, colour=colours.get(name, ""), visible=visible, context=context)
        )
    return layers
