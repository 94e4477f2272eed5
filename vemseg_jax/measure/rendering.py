"""A picture of nuclei and nucleoli in space, drawn without a display or OpenGL."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

from vemseg_jax.measure.meshes import Mesh

# Soft hues that neighbours are told apart by, also with the usual colour deficiencies.
NUCLEUS_COLOURS = ("#6FA8DC", "#5FC2A8", "#B79AD8", "#E3B066", "#86B84F", "#7C8FD9")
NUCLEOLUS_COLOUR, OUTSIDE_COLOUR = "#C2185B", "#FF8F00"
ELEVATION, AZIMUTH = 24.0, -58.0
INCHES, DPI = (10.0, 8.2), 150
# Triangles have no smooth edges: they are drawn this much larger and averaged down.
OVERSAMPLING = 3
# Rows that a white band keeps.
BAND = 45
# About so many triangles are drawn in all, and of no more objects than this.
TRIANGLES, MOST_OBJECTS = 160_000, 600
_INK = "#37474F"


@dataclasses.dataclass(frozen=True)
class Solid:
    """A mesh to draw: "nucleus", "nucleolus" or "outside", a nucleolus without nucleus."""

    mesh: Mesh
    kind: str
    id: int


def cells_per_object(objects: int) -> int:
    """Cells of the grid of one object, so that a picture of so many has enough triangles."""
    side = (TRIANGLES / max(objects, 1) / 7) ** 0.5
    return int(np.clip(side, 10, 44)) ** 3


def render(
    path: Path,
    solids: Sequence[Solid],
    *,
    low_um: np.ndarray,
    high_um: np.ndarray,
    title: str,
    note: str = "",
) -> None:
    """Draws a PNG; y and z grow downwards, so that the first slice is on top.

    Args:
      path: the file to write.
      solids: what to draw; nuclei are drawn translucent.
      low_um, high_um: `[3]`, corners of the measured box, µm, xyz.
      title: above the picture.
      note: below it.
    """
    low, high = low_um, high_um
    figure = Figure(figsize=INCHES, dpi=DPI * OVERSAMPLING, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes: Axes3D = figure.add_axes((0.02, 0.03, 0.96, 0.9), projection="3d")
    axes.set_proj_type("persp", focal_length=0.9)
    axes.view_init(elev=ELEVATION, azim=AZIMUTH)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), zlim=(high[2], low[2]))
    axes.set_box_aspect(_shown(high - low), zoom=1.08)
    _frame(axes, low, high)
    if solids:
        triangles = _triangles(solids)
        # A wide flat box reaches beyond its axes.
        triangles.set_clip_on(False)
        axes.add_collection3d(triangles)
    figure.text(0.04, 0.955, title, fontsize=14, color=_INK, weight="bold")
    _legend(figure, solids)
    if note:
        figure.text(0.04, 0.025, note, fontsize=9, color=_INK)
    canvas.draw()
    pixels = _averaged(np.asarray(canvas.buffer_rgba())[..., :3])
    matplotlib.image.imsave(path, _without_blank_rows(pixels), dpi=DPI)


def _averaged(pixels: np.ndarray) -> np.ndarray:
    """Means of squares of `OVERSAMPLING` pixels: `[h, w, 3]` uint8, both ways."""
    n = OVERSAMPLING
    h, w = pixels.shape[0] // n * n, pixels.shape[1] // n * n
    total = np.zeros((h // n, w // n, 3), np.uint16)
    for i in range(n):
        for j in range(n):
            total += pixels[i:h:n, j:w:n]
    return (total // (n * n)).astype(np.uint8)


def _without_blank_rows(pixels: np.ndarray) -> np.ndarray:
    """Narrows white bands, which flat volumes leave above and below them."""
    blank = (pixels == 255).all(axis=(1, 2))
    edges = np.flatnonzero(np.diff(blank.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    keep = np.ones(len(blank), bool)
    for start, stop in edges:
        keep[start + BAND : stop] = False
    return pixels[keep]


def _shown(extent: np.ndarray) -> tuple[float, float, float]:
    x, y, z = extent / extent.max()
    return float(x), float(y), float(z)


def _frame(axes: Axes3D, low: np.ndarray, high: np.ndarray) -> None:
    """Axes in µm and the edges of the box."""
    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y"), (axes.zaxis, "z")):
        axis.set_pane_color((0.965, 0.972, 0.98, 1.0))
        axis.line.set_color("#90A4AE")
        axis._axinfo["grid"].update({"color": "#DDE4E8", "linewidth": 0.6})
        axis.set_label_text(f"{name} (µm)", color=_INK)
        axis.set_tick_params(colors=_INK, labelsize=9)
    thin = (high - low) < 0.35 * (high - low).max()
    for flat, name in zip(thin, "xyz", strict=True):
        if flat:
            axes.locator_params(axis=name, nbins=3)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    # Those that meet in the corner next to the eye would be in the way.
    nearest = corners[np.argmax(corners @ _towards_viewer())]
    edges = [
        (a, b)
        for i, a in enumerate(corners)
        for b in corners[i + 1 :]
        if np.count_nonzero(a != b) == 1 and not (a == nearest).all() | (b == nearest).all()
    ]
    axes.add_collection3d(Line3DCollection(edges, colors="#B0BEC5", linewidths=0.6, clip_on=False))


def _towards_viewer() -> np.ndarray:
    """Direction xyz from the middle of the box to the eye; y and z point down."""
    e, a = np.radians([ELEVATION, AZIMUTH])
    return np.array([np.cos(e) * np.cos(a), -np.cos(e) * np.sin(a), -np.sin(e)])


def _triangles(solids: Sequence[Solid]) -> Poly3DCollection:
    """All triangles in one collection, which sorts them from far to near."""
    view = _towards_viewer()
    light = view + np.array([-0.5, -0.35, -0.7])
    light /= np.linalg.norm(light)
    corners, colours = [], []
    for solid in solids:
        triangles = solid.mesh.vertices[solid.mesh.faces]
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        facing = normals @ view
        if solid.kind != "nucleus":
            triangles, normals = triangles[facing > -0.1], normals[facing > -0.1]
            facing = facing[facing > -0.1]
        corners.append(triangles)
        colours.append(_shade(solid, normals @ light, facing))
    return Poly3DCollection(
        np.concatenate(corners),
        facecolors=np.concatenate(colours),
        edgecolors="none",
        linewidths=0,
        antialiased=False,
        zsort="average",
    )


def _shade(solid: Solid, lit: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Colours `[f, 4]`: diffuse light and a highlight; nuclei are denser towards their rim."""
    if solid.kind == "nucleus":
        name = NUCLEUS_COLOURS[(solid.id - 1) % len(NUCLEUS_COLOURS)]
        rim = (1 - np.abs(facing)) ** 2
        alpha = np.where(facing > 0, 0.13, 0.07) + 0.34 * rim
        light = 0.78 + 0.22 * np.maximum(lit, 0)
    else:
        name = NUCLEOLUS_COLOUR if solid.kind == "nucleolus" else OUTSIDE_COLOUR
        alpha = np.ones_like(lit)
        light = 0.5 + 0.5 * np.maximum(lit, 0)
    base = np.array(matplotlib.colors.to_rgb(name))
    shine = 0.35 * np.maximum(lit, 0) ** 24
    rgb = base * light[:, None] * (1 - shine[:, None]) + shine[:, None]
    return np.concatenate([np.clip(rgb, 0, 1), alpha[:, None]], axis=1)


def _legend(figure: Figure, solids: Sequence[Solid]) -> None:
    named = (
        ("nucleus", "nuclei", NUCLEUS_COLOURS[0]),
        ("nucleolus", "nucleoli", NUCLEOLUS_COLOUR),
        ("outside", "nucleoli outside nuclei", OUTSIDE_COLOUR),
    )
    kinds = {solid.kind for solid in solids}
    x = 0.04
    for kind, text, colour in named:
        if kind in kinds:
            figure.text(x, 0.918, "●", fontsize=13, color=colour)
            figure.text(x + 0.022, 0.92, text, fontsize=10.5, color=_INK)
            x += 0.05 + 0.0105 * len(text)
