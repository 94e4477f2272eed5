"""The binaries. Each parses its flags and calls one library function."""
