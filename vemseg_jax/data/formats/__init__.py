"""Files of other programs as stacks of slices, whatever format they are in."""
