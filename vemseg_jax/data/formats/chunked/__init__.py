"""Chunked arrays: OME-Zarr, plain Zarr, N5 and precomputed."""
