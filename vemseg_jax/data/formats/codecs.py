"""Codecs and types of chunked arrays that tensorstore cannot read, by name."""

from collections.abc import Iterator
from typing import Any

# Where a driver keeps the metadata of an array.
METADATA = {
    "zarr": ".zarray",
    "zarr3": "zarr.json",
    "n5": "attributes.json",
    "neuroglancer_precomputed": "info",
}
_ZARR2 = ("blosc", "bz2", "zlib", "gzip", "zstd")
_ZARR3 = ("bytes", "transpose", "sharding_indexed", "blosc", "gzip", "zstd", "crc32c")
_N5 = ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")
_PRECOMPUTED = ("raw", "jpeg", "png", "compressed_segmentation")
_ZARR3_TYPES = ("bool", "complex64", "complex128", "bfloat16")
_KNOWN_AS = {
    "zarr": _ZARR2,
    "zarr3": ("blosc", "gzip", "zstd"),
    "n5": _N5,
    "neuroglancer_precomputed": _PRECOMPUTED,
}


def name_unknown(driver: str, metadata: dict[str, Any]) -> str | None:
    """What cannot be read and what to do about it; None where nothing is to be seen.

    Args:
      driver: of tensorstore.
      metadata: of the array, as stored.
    """
    try:
        codecs, kinds = list(_codecs(driver, metadata)), list(_types(driver, metadata))
    except (AttributeError, IndexError, KeyError, TypeError):
        # Damaged metadata, which say so themselves.
        return None
    if codecs:
        return (
            f"its chunks are coded with {' and '.join(codecs)}, which cannot be read here; save it"
            f" again with one of {', '.join(_KNOWN_AS[driver])}, without filters"
        )
    if kinds:
        return f"values of {kinds[0]}; numbers are needed: save one number a voxel"
    return None


def _codecs(driver: str, metadata: dict[str, Any]) -> Iterator[str]:
    if driver == "zarr":
        compressor = metadata.get("compressor")
        if compressor and compressor["id"] not in _ZARR2:
            yield str(compressor["id"])
        for each in metadata.get("filters") or ():
            yield f"the filter {each['id']}"
    elif driver == "zarr3":
        yield from _zarr3_codecs(metadata["codecs"])
    elif driver == "n5":
        kind = metadata["compression"]["type"]
        if kind not in _N5:
            yield str(kind)
    elif metadata["scales"][0]["encoding"] not in _PRECOMPUTED:
        yield str(metadata["scales"][0]["encoding"])


def _zarr3_codecs(codecs: list[Any]) -> Iterator[str]:
    for codec in codecs:
        name = codec if isinstance(codec, str) else codec["name"]
        if name not in _ZARR3:
            yield str(name)
        elif name == "sharding_indexed":
            yield from _zarr3_codecs(codec["configuration"]["codecs"])


def _types(driver: str, metadata: dict[str, Any]) -> Iterator[str]:
    if driver == "zarr":
        kind = metadata["dtype"]
        if isinstance(kind, list):
            yield f"several fields ({', '.join(str(field[0]) for field in kind)})"
        elif kind[1:2] not in tuple("uifbc"):
            yield f"type {kind}"
    elif driver == "zarr3":
        kind = metadata["data_type"]
        kind = kind if isinstance(kind, str) else kind["name"]
        if kind not in _ZARR3_TYPES and kind.rstrip("0123456789") not in ("int", "uint", "float"):
            yield f"type {kind}"
