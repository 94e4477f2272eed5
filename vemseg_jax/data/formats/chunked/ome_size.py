"""Axes, voxel size and position of the arrays of an OME-Zarr image."""

import warnings
from typing import Any

import yaozarrs

from vemseg_jax.data.formats.chunked.size import Grid, of_transformations
from vemseg_jax.errors import InputError


def read_multiscale(path: object, attributes: dict[str, Any], driver: str) -> Any:
    """The first multiscale of an image, with an array at least.

    Args:
      path: of the image, for messages.
      attributes: that hold "multiscales".
      driver: "zarr3" for version 0.5, "zarr" for 0.4.

    Raises:
      InputError: they are not what the version asks for.
    """
    model = yaozarrs.v05.Image if driver == "zarr3" else yaozarrs.v04.Image
    try:
        with warnings.catch_warnings():
            # Units that it does not know are judged later.
            warnings.simplefilter("ignore")
            image: Any = model.model_validate(attributes)
        multiscale = image.multiscales[0]
        multiscale.datasets[0]
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: not an OME-Zarr 0.4 or 0.5 image ({_reason(error)}); give the directory"
            " whose metadata has multiscales"
        ) from error
    return multiscale


def _reason(error: Exception) -> str:
    """What is wrong first, and where, of an error of pydantic; of others what they say."""
    listed = getattr(error, "errors", None)
    if callable(listed):
        first = listed()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]
    return str(error).split("\n")[0][:120]


def grid_of(multiscale: Any, index: int = 0) -> Grid:
    """What is recorded of the array at `index`; its axes may not be as many as its dimensions."""
    names = "".join(axis.name.lower() for axis in multiscale.axes)
    units = [axis.unit for axis in multiscale.axes]
    steps = [
        *multiscale.datasets[index].coordinateTransformations,
        *(multiscale.coordinateTransformations or ()),
    ]
    return of_transformations(names, units, [step.model_dump() for step in steps])


def grid_of_array(path: object, name: str, attributes: dict[str, Any], driver: str) -> Grid | None:
    """What the image around an array records of it; None where that is no image with it.

    Args:
      path: of the image.
      name: of the array in it.
      attributes: that hold "multiscales".
      driver: as in `read_multiscale`.
    """
    try:
        multiscale = read_multiscale(path, attributes, driver)
    except InputError:
        return None
    paths = [dataset.path.strip("/") for dataset in multiscale.datasets]
    return grid_of(multiscale, paths.index(name)) if name in paths else None
