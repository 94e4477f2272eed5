"""Nuclei and nucleoli of whole volumes as objects: sizes, shapes, meshes and a picture.

The package can be called: `vemseg_jax.measure(...)` is `vemseg_jax.api.measure`.
"""

from vemseg_jax import api
from vemseg_jax.callable_module import make_callable

make_callable(__name__, api.measure)
