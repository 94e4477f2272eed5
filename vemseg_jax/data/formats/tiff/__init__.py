"""TIFF files, and folders of TIFF or PNG slices."""
