"""How every binary starts and how it fails."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags

from vemseg_jax.data.failures import machine_fault
from vemseg_jax.errors import InputError
from vemseg_jax.huge_pages import restart_with_huge_pages

INPUT_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130


def run(main: Callable[..., int | None], *, positional: int = 0) -> None:
    """Parses the flags, calls `main` and turns `InputError` into one line on stderr.

    Exit status: what `main` returns, 0 for None; 2 input that cannot be used, or a disk, network
    share or memory that failed; 130 interrupted.
    Any other exception is a defect of the program and keeps its traceback.

    Args:
      main: called with the arguments that are no flags.
      positional: how many of those there may be.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        try:
            if len(argv) > 1 + positional:
                unexpected = argv[1 + positional]
                raise InputError(
                    f"unexpected argument {unexpected!r}; options look like --name=value, see"
                    " --help"
                )
            status = main(*argv[1:])
            sys.stdout.flush()
            return status
        except InputError as error:
            _fail(error)
        except Exception as error:
            fault = None if isinstance(error, BrokenPipeError) else machine_fault(error)
            if fault is None:
                raise
            _fail(InputError(fault))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED_STATUS)
        except BrokenPipeError:
            # The reader of our output (such as `head`) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None

    restart_with_huge_pages()
    keep_compiled_programs()
    # jax tells of every accelerator it does not find.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    app.run(guarded, flags_parser=_parse)


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache, so that a second run starts at once.

    `JAX_COMPILATION_CACHE_DIR` names another folder; empty, nothing is kept. Small programs are
    kept too: those that make initial weights compile for 5 to 15 s together.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "vemseg_jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _parse(argv: Sequence[str]) -> list[str]:
    if any(argument in ("--help", "-help", "--helpfull", "-?") for argument in argv[1:]):
        return app.parse_flags_with_usage(list(argv))
    try:
        return flags.FLAGS(list(argv))
    except SystemExit:
        raise
    except Exception as error:  # a configuration file is code: anything can come out of it
        _fail(error)
        raise


def _fail(error: Exception) -> None:
    """Prints one line and exits."""
    text = " ".join(str(error).split("\n")) or type(error).__name__
    if isinstance(error, KeyError | AttributeError | TypeError):
        text = f"{type(error).__name__}: {text}"
    print(f"error: {text}", file=sys.stderr)
    sys.exit(INPUT_ERROR_STATUS)
