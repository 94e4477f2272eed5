"""The one exception that a user's input can cause."""

from collections.abc import Iterable

# With which the binaries exit then.
INPUT_ERROR_STATUS = 2


class InputError(ValueError):
    """Input that cannot be used: a file, a flag or a configuration value.

    The message is one line that names the file or flag, what was found, and what would be
    right. The binaries print it without a traceback and exit with status 2.
    """


def check_choice(name: str, found: object, allowed: Iterable[object]) -> None:
    """Refuses the value of a flag or argument that is none of those allowed.

    Raises:
      InputError: names it, and lists them; None, where it is allowed, goes without saying.
    """
    choices = list(allowed)
    if found not in choices:
        listed = ", ".join(str(each) for each in choices if each is not None)
        raise InputError(f"--{name}={found}: must be one of {listed}")
