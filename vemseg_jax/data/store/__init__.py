"""Volumes on disk: written whole or not at all, and read slice by slice."""
