"""Segmentation of nuclei and nucleoli in volume electron microscopy, in JAX and Flax."""

__version__ = "0.1.0"
