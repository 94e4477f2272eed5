"""Amounts as a person reads them."""

_STEPS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def amount(size: float) -> str:
    """Bytes as `1.2 GiB`, `130 MiB` or `0 bytes`: three figures, never a power of ten."""
    for unit, step in _STEPS:
        if size >= 0.9995 * step:
            return f"{figures(size / step)} {unit}"
    return f"{size:.0f} bytes"


def figures(value: float) -> str:
    """A number with three figures and no exponent: 1234, 123, 12.3, 1.23, 0.0123."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    digits = 0
    while abs(value) * 10**digits < 99.95 and digits < 12:
        digits += 1
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
