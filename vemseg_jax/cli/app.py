"""How every binary starts and how it fails."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app

from vemseg_jax.errors import InputError

INPUT_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130


def run(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main` and turns `InputError` into one line on stderr.

    Exit status: 0 done, 2 input that cannot be used, 130 interrupted. Any other exception is
    a defect of the program and keeps its traceback.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise InputError(
                    f"unexpected argument {argv[1]!r}; options are given as --name=value, see --help"
                )
            main()
        except InputError as error:
            print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
            sys.exit(INPUT_ERROR_STATUS)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED_STATUS)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app.run(guarded)
