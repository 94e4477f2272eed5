"""Values of flags that are given once for all labels or once per structure."""

from vemseg_jax.errors import InputError

# As in `data.convert.label_placing`, which is slow to import: every structure that is not named.
ALL = ""


def name_and_rest(text: str, *, flag: str, example: str) -> tuple[str, str]:
    """`NAME=REST` in two.

    Raises:
      InputError: one of the two is missing.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not (name and equals and rest):
        raise InputError(f"--{flag}={text}: must be like {example}")
    return name, rest


def by_structure(texts: list[str], *, flag: str, example: str) -> dict[str, str]:
    """Values by the structure named in front of them, `ALL` where none is.

    Raises:
      InputError: a structure has two, or one is empty.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, value = ALL, text.strip()
        if "=" in text:
            name, value = name_and_rest(text, flag=flag, example=f"nuclei={example}")
        if not value:
            raise InputError(f"--{flag}=: must be like {example} or nuclei={example}")
        if name in values:
            of = f"for {name}" if name else "for all labels"
            raise InputError(f"--{flag}={text}: is given twice {of}; give it once")
        values[name] = value
    return values


def parse_offsets(texts: list[str]) -> dict[str, tuple[int, int, int]]:
    """`--labels_offset` by structure, zyx.

    Raises:
      InputError: not three whole numbers, or as `by_structure`.
    """
    offsets: dict[str, tuple[int, int, int]] = {}
    for name, text in by_structure(texts, flag="labels_offset", example="8,64,64").items():
        try:
            z, y, x = (int(part) for part in text.split(","))
        except ValueError:
            raise InputError(
                f"--labels_offset={text}: must be three whole numbers of voxels, z,y,x, such as"
                " 8,64,64 or nuclei=8,64,64"
            ) from None
        offsets[name] = (z, y, x)
    return offsets
