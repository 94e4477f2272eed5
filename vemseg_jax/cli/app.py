"""How every binary starts and how it fails."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

from vemseg_jax.cli import interrupt
from vemseg_jax.cli.config_files import with_config_files
from vemseg_jax.cli.flag_errors import flag_message
from vemseg_jax.cli.help import WORDS as HELP_WORDS
from vemseg_jax.cli.help import help_text, wants_help
from vemseg_jax.cli.log_lines import LogLines
from vemseg_jax.compiled_programs import keep_compiled_programs
from vemseg_jax.data.store.failures import machine_fault
from vemseg_jax.errors import INPUT_ERROR_STATUS, InputError
from vemseg_jax.huge_pages import restart_with_huge_pages

NOTHING_KEPT = "nothing was written"


def run(main: Callable[..., int | None], *, positional: int = 0, kept: str = NOTHING_KEPT) -> None:
    """Parses the flags, calls `main` and turns `InputError` into one line on stderr.

    Exit status: what `main` returns, 0 for None; 2 input that cannot be used, or a disk, network
    share or memory that failed; 130 interrupted.
    Any other exception is a defect of the program and keeps its traceback.

    Args:
      main: called with the arguments that are no flags.
      positional: how many of those there may be.
      kept: what an interrupt leaves, for the line that it ends with.
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
            from vemseg_jax.accelerator import explained

            if isinstance(error, BrokenPipeError):
                # The reader of our output (such as `head`) has seen enough.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return None
            text = explained(error) if isinstance(error, RuntimeError) else None
            text = text or machine_fault(error)
            if text is None:
                raise
            _fail(InputError(text))
        return None

    _check_platform()
    try:
        with interrupt.in_order():
            restart_with_huge_pages()
            keep_compiled_programs()
            # jax tells of every accelerator it does not find.
            logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
            absl_logging.get_absl_handler().setFormatter(LogLines())
            app.run(guarded, flags_parser=lambda argv: _parse(argv, main.__module__))
    except KeyboardInterrupt as error:
        interrupt.end(str(error) or f"interrupted: {kept}")


def _check_platform() -> None:
    """Ends where what is written could not be locked."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        _fail(InputError("vemseg runs on Linux, macOS and, on Windows, in WSL2"))


def _parse(argv: Sequence[str], module: str) -> list[str]:
    try:
        if wants_help(argv):
            _print_help(argv, module)
        return flags.FLAGS(with_config_files(argv))
    except SystemExit as error:
        # absl takes the whole help for a failure.
        sys.exit(0 if wants_help(argv, ("--helpfull", "-helpfull")) else error.code)
    except InputError as error:
        _fail(error)
        raise
    except Exception as error:  # a configuration file is code: anything can come out of it
        _fail(InputError(flag_message(error)))
        raise


def _print_help(argv: Sequence[str], module: str) -> None:
    """Prints the help of the command and exits; of what else is given only `--config` matters."""
    with contextlib.suppress(Exception):
        flags.FLAGS([word for word in with_config_files(argv) if word not in HELP_WORDS])
    doc = sys.modules[module].__doc__ or ""
    spec = sys.modules[module].__spec__
    name = spec.name if spec is not None else module
    try:
        print(help_text(name, doc))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _fail(error: Exception) -> None:
    """Prints one line and exits."""
    text = " ".join(str(error).split("\n")) or type(error).__name__
    if isinstance(error, KeyError | AttributeError | TypeError):
        text = f"{type(error).__name__}: {text}"
    print(f"error: {text}", file=sys.stderr)
    sys.exit(INPUT_ERROR_STATUS)
