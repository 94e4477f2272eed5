"""MRC files."""
