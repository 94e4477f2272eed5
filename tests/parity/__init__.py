"""Checks the project against golden files of the reference systems.

`python -m tests.parity DIR [--only PATTERN]` prints one line per compared quantity and exits
non-zero on any difference over its tolerance and on any file it cannot run.
"""
