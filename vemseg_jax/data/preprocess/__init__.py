"""Alignment and histogram equalisation of volumes."""
