"""OME-Zarr 0.5 metadata of images, labels and the list of labels."""

import json
from pathlib import Path
from typing import Any

from yaozarrs import v05

from vemseg_jax.data.store.atomic import write_json
from vemseg_jax.data.store.colours import colour_of
from vemseg_jax.data.store.failures import reason
from vemseg_jax.data.store.label_names import structure_of
from vemseg_jax.errors import InputError

AXES = ("z", "y", "x")
UNIT = "nanometer"
# Of 255; background and unlabelled are transparent.
OPACITY = 160
_CLEAR = (0, 0, 0, 0)


def multiscales(
    name: str, *, voxel_size: tuple[float, float, float], levels: list[tuple[str, int, float]]
) -> dict[str, Any]:
    """The "ome" attribute of an image.

    Args:
      name: shown by viewers.
      voxel_size: nm, zyx, of full resolution.
      levels: array path, pixels of full resolution per pixel in y and x, and position of its
        first pixel in full-resolution pixels, finest level first.
    """
    z, y, x = voxel_size
    datasets = []
    for path, factor, first in levels:
        transformations: list[Any] = [v05.ScaleTransformation(scale=[z, y * factor, x * factor])]
        if first:
            transformations.append(
                v05.TranslationTransformation(translation=[0.0, y * first, x * first])
            )
        datasets.append(v05.Dataset(path=path, coordinateTransformations=transformations))
    axes: list[Any] = [v05.SpaceAxis(name=axis, unit=UNIT) for axis in AXES]
    image = v05.Image(multiscales=[v05.Multiscale(name=name, axes=axes, datasets=datasets)])
    return image.model_dump(mode="json", by_alias=True, exclude_none=True)


def image_label(name: str, *, shades: bool = False) -> dict[str, Any]:
    """The "image-label" entry of a label's "ome": what its values are, their colours, the image.

    0 and 255 are transparent; 1 has a colour of the label's name, a prediction one that is told
    apart from its structure's. With `shades`, of probabilities, the colour grows denser up to 255.
    """
    structure = structure_of(name)
    colour = (*colour_of(name), OPACITY)
    if shades:
        r, g, b, opacity = colour
        named = {v: (f"{v / 255:.3f}", (r, g, b, v * opacity // 255)) for v in range(256)}
    else:
        named = {0: ("background", _CLEAR), 1: (structure, colour), 255: ("unlabelled", _CLEAR)}
    return {
        "version": "0.5",
        "colors": [{"label-value": v, "rgba": list(rgba)} for v, (_, rgba) in named.items()],
        "properties": [{"label-value": v, "name": text} for v, (text, _) in named.items()],
        "source": {"image": "../../"},
    }


def label_colour(attributes: dict[str, Any], name: str) -> tuple[int, int, int, int]:
    """Red, green, blue and opacity (0-255) of value 1 of a label, as its group records it.

    Args:
      attributes: of the label's group.
      name: of the label; gives the colour where none is recorded.
    """
    recorded = attributes.get("ome", {}).get("image-label", {}).get("colors", ())
    for entry in (*recorded, *image_label(name)["colors"]):
        if entry.get("label-value") == 1 and len(entry.get("rgba") or ()) == 4:
            r, g, b, opacity = (int(c) for c in entry["rgba"])
            return r, g, b, opacity
    raise ValueError(f"label {name!r}: no colour")  # image_label always has one


def write_group(directory: Path, attributes: dict[str, Any]) -> None:
    """Writes a group's zarr.json in one step, its "ome" attribute validated before."""
    if "ome" in attributes:
        v05.OMEAttributes.model_validate(attributes)
    write_json(
        directory / "zarr.json",
        {"zarr_format": 3, "node_type": "group", "attributes": attributes},
    )


def read_group(directory: Path) -> dict[str, Any]:
    """The attributes in a group's zarr.json.

    Raises:
      InputError: it is missing, not JSON, or describes something else.
    """
    path = directory / "zarr.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["node_type"] != "group" or value["zarr_format"] != 3:
            raise KeyError
        return dict(value.get("attributes", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = "not the metadata of a Zarr 3 group"
        if not isinstance(error, FileNotFoundError):
            why = reason(error, damaged=why)
        raise InputError(f"{path}: {why}") from error
