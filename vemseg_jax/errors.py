"""The one exception that a user's input can cause."""

# With which the binaries exit then.
INPUT_ERROR_STATUS = 2


class InputError(ValueError):
    """Input that cannot be used: a file, a flag or a configuration value.

    The message is one line that names the file or flag, what was found, and what would be
    right. The binaries print it without a traceback and exit with status 2.
    """
