"""The voxel size of a volume: recorded, or given by the flag."""

from vemseg_jax.data.formats.physical_size import lengths
from vemseg_jax.data.formats.slice_source import SliceSource
from vemseg_jax.errors import InputError

TOLERANCE = 0.01


def same_length(length: float | None, other: float | None) -> bool:
    """Whether two lengths agree within 1 %, as they do where one is not recorded."""
    return length is None or other is None or abs(length - other) <= TOLERANCE * other


def resolve_voxel_size(
    source: SliceSource,
    given: tuple[float, float, float] | None,
    *,
    trust_flag: bool = False,
) -> tuple[tuple[float, float, float], str]:
    """The voxel size in nm, zyx, and where it comes from; prints a warning where they differ.

    Args:
      source: what records it, or not.
      given: `--voxel_size`.
      trust_flag: whether it wins where the source records something else.

    Raises:
      InputError: neither given nor recorded, or the two differ by more than 1 %.
    """
    recorded = source.voxel_size
    z, y, x = recorded
    if given is None:
        if z is None or y is None or x is None:
            raise InputError(
                f"{source.path}: {_what_lacks(source)}; give it in nm as z,y,x, such as"
                f" --voxel_size={_example(source)}"
            )
        return (z, y, x), "the source"
    if not all(0 < size < float("inf") for size in given):
        raise InputError(f"--voxel_size={lengths(given)}: must be three positive lengths in nm")
    if all(same_length(a, b) for a, b in zip(given, recorded, strict=True)):
        return given, "--voxel_size"
    if not trust_flag:
        raise InputError(
            f"--voxel_size={lengths(given)}: {source.path} records {lengths(recorded)} nm (z, y,"
            " x); leave the flag out if the file is right, add --trust_flag if the flag is right"
        )
    print(
        f"warning: {source.path} records a voxel size of {lengths(recorded)} nm (z,y,x);"
        f" --trust_flag: --voxel_size={lengths(given)} is taken"
    )
    return given, f"--voxel_size, against {lengths(recorded)} nm in the source"


def _what_lacks(source: SliceSource) -> str:
    known = any(size is not None for size in source.voxel_size)
    part = f" completely (z, y, x = {lengths(source.voxel_size)} nm)" if known else ""
    reason = f": {source.size_note}" if source.size_note else ""
    return f"does not record its voxel size{part}{reason}"


def _example(source: SliceSource) -> str:
    usual = (50.0, 10.0, 10.0)
    return lengths([b if a is None else a for a, b in zip(source.voxel_size, usual, strict=True)])
