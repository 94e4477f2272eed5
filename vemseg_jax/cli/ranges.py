"""Slice numbers on the command line."""

from vemseg_jax.errors import InputError


def parse_slices(text: str, *, flag: str) -> tuple[int, ...]:
    """`"0:3,7"` -> (0, 1, 2, 7); ranges are half-open; empty text gives no slices.

    Raises:
      InputError: anything else; names the flag.
    """
    slices: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            numbers = [int(n) for n in part.split(":")]
            if len(numbers) > 2 or min(numbers) < 0:
                raise ValueError
        except ValueError:
            raise InputError(
                f"--{flag}={text}: {part!r} is no slice number or range; "
                "write numbers and half-open ranges, such as 0:150,170"
            ) from None
        slices += range(*numbers) if len(numbers) == 2 else numbers
    return tuple(sorted(set(slices)))


def parse_range(text: str) -> tuple[int, int] | None:
    """`--z_range` as first slice and one past the last; None where it is empty.

    Raises:
      InputError: anything else.
    """
    if not text:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise InputError(f"--z_range={text}: give START:STOP, such as --z_range=0:150")
    return int(start), int(stop)
