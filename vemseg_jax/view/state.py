"""The state of a neuroglancer viewer that shows a volume."""

import math
from collections.abc import Sequence

import neuroglancer
import numpy as np

from vemseg_jax.data.store.volume import Volume
from vemseg_jax.view.layers import PROBABILITY, LayerContent, contrast
from vemseg_jax.view.source import IMAGE, SEGMENTATION, PyramidSource

# Pixels, x and y, in which a whole slice is to fit at first: of one of four panels, and of one.
_QUARTER, _WHOLE = (600, 280), (1200, 560)
_GREY = """#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
_COLOUR_MAP = """#uicontrol invlerp normalized
#uicontrol float opacity slider(min=0, max=1, default=0.5)
void main() {
  float value = normalized();
  emitRGBA(vec4(colormapJet(value), opacity * min(1.0, 2.0 * value)));
}
"""


def _source(layer: LayerContent) -> neuroglancer.LayerDataSource:
    source = PyramidSource(
        layer.pyramid,
        name=layer.name,
        voxel_size=layer.voxel_size,
        volume_type=SEGMENTATION if layer.is_segmentation else IMAGE,
        has_training=layer.has_training,
    )
    # Meshes would be the other part; they take the whole array in memory.
    return neuroglancer.LayerDataSource(
        url=source, subsources={"default": True, "bounds": True}, enable_default_subsources=False
    )


def value_window(dtype: np.dtype, white: float) -> list[float]:
    """The ends of the slider of grey values: all the bits that are in use.

    0 to 4095 where a camera of 12 bit fills 16, so that black and white can be set.

    Args:
      dtype: of the image.
      white: the grey value shown as white at first.
    """
    top = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    return [0.0, min(top, 2.0 ** math.ceil(math.log2(max(white, 1) + 1)) - 1)]


def _layer(layer: LayerContent, grey: tuple[float, float]) -> neuroglancer.Layer:
    source = _source(layer)
    if layer.is_segmentation:
        # Selecting 1 leaves 0, background, and 255, unlabelled, out; pointed at they are told.
        return neuroglancer.SegmentationLayer(
            source=source, segments=[1], segment_colors={1: layer.colour}, selected_alpha=0.4
        )
    probability = layer.kind == PROBABILITY
    dtype = layer.pyramid.dtype
    top = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    span = [0.0, top] if probability else list(grey)
    window = [0.0, top] if probability else value_window(dtype, grey[1])
    return neuroglancer.ImageLayer(
        source=source,
        shader=_COLOUR_MAP if probability else _GREY,
        shader_controls={"normalized": {"range": span, "window": window}},
        opacity=1.0,
        blend="default",
    )


def viewer_state(
    volume: Volume, layers: Sequence[LayerContent], *, z: int, layout: str
) -> neuroglancer.ViewerState:
    """The state: layers, voxel size, position, zoom and panels.

    Args:
      volume: an open volume.
      layers: lowest first.
      z: the slice shown first, at the middle of the slice.
      layout: "4panel", "xy", "xz" or "yz".
    """
    depth, h, w = volume.shape
    dz, dy, dx = volume.voxel_size
    state = neuroglancer.ViewerState()
    state.title = volume.path.name
    state.dimensions = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm", scales=[dx, dy, dz]
    )
    state.position = [w / 2, h / 2, z + 0.5]
    # The unit of the zoom is the smallest voxel side, per pixel of the screen.
    smallest = min(dz, dy, dx)
    panel = _QUARTER if layout == "4panel" else _WHOLE
    state.cross_section_scale = max(w * dx / panel[0], h * dy / panel[1]) / smallest
    state.projection_scale = 1.5 * max(w * dx, h * dy, depth * dz) / smallest
    state.show_scale_bar = True
    state.show_axis_lines = False
    state.layout = layout
    grey = contrast(volume)
    for layer in layers:
        state.layers.append(name=layer.name, layer=_layer(layer, grey), visible=layer.visible)
    return state
