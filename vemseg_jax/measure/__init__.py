"""Nuclei and nucleoli of whole volumes as objects: sizes, shapes, meshes and a picture."""
