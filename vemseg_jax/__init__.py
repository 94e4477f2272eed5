"""Segmentation of nuclei and nucleoli in volume electron microscopy, in JAX and Flax.

    import vemseg_jax as vs

    segmenter = vs.load("runs/nuclei")
    result = segmenter.predict(stack, voxel_size=(50, 4, 4))

The names in `__all__` are stable: later versions keep them and what they mean. Each is loaded when
it is first used, so that `import vemseg_jax` takes no time and does not import jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vemseg_jax.xla_guard import avoid_wrong_sums

if TYPE_CHECKING:
    from vemseg_jax import configs, models
    from vemseg_jax.api import convert, evaluate, load, measure, open_volume, predict, train
    from vemseg_jax.errors import InputError
    from vemseg_jax.infer.segmenter import Segmentation, Segmenter

# The version of the package; pyproject.toml reads it here.
__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "configs",
    "convert",
    "evaluate",
    "load",
    "measure",
    "models",
    "open_volume",
    "predict",
    "train",
]

# Name -> module that holds it; the other names of `__all__` are modules themselves. `train` and
# `measure` are packages that can be called, see `callable_module`.
_HOMES = {
    "InputError": "errors",
    "Segmentation": "infer.segmenter",
    "Segmenter": "infer.segmenter",
    "convert": "api",
    "evaluate": "api",
    "load": "api",
    "open_volume": "api",
    "predict": "api",
}

avoid_wrong_sums()


if not TYPE_CHECKING:  # a name that is not there is found by type checkers too

    def __getattr__(name: str) -> Any:
        """A name of `__all__`, loaded as it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in _HOMES:
            return importlib.import_module(f"{__name__}.{name}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
