"""Datasets of HDF5 files, Imaris among them."""
