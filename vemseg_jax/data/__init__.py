"""Volumes, labels, crops: everything between the files on disk and a batch."""
