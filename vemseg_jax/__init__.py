"""Segmentation of nuclei and nucleoli in volume electron microscopy, in JAX and Flax."""

from vemseg_jax.xla_guard import avoid_wrong_sums

__version__ = "0.1.0"

avoid_wrong_sums()
