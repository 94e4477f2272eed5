"""The binaries. Each parses its flags and calls one library function."""

from vemseg_jax.cli import interrupt

interrupt.from_the_start()
