"""Files that cannot be read: which format they are of, and what to do."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_FIJI = "open it in Fiji (Bio-Formats) and save it as TIFF or OME-TIFF"
_LOSSY = "whose compression changes grey values; export TIFF or PNG from the original data"
_MEDICAL = "save it as TIFF, in Fiji or with nibabel and tifffile in Python"

# First bytes, and where they are not at the start their place: format and what to do.
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG image", _LOSSY),
    (4, b"jP  ", "a JPEG 2000 image", "save it as TIFF or PNG"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", "save it as TIFF or PNG"),
    (0, b"GIF8", "a GIF image", "save it as TIFF or PNG"),
    (8, b"WEBP", "a WebP image", "save it as TIFF or PNG"),
    (0, b"8BPS", "a Photoshop document", "save it as TIFF, flattened to 8 or 16 bit grey"),
    (0, b"gimp xcf", "a GIMP document", "export it as TIFF or PNG, flattened to grey"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file", _FIJI),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file", _FIJI),
    (0, b"\x70\x00\x00\x00", "a Leica LIF file", _FIJI),
    (0, b"OLYMPUSRAWFORMAT", "an Olympus OIR file", _FIJI),
    (0, b"\xd0\xcf\x11\xe0", "an Olympus OIB, Zeiss ZVI or other OLE file", _FIJI),
    (0, b"\xd3\xed\xf5\xf2", "a FIB-SEM .dat file of Janelia", _FIJI),
    (0, b"\x97\x01\x49\x49", "a TIA .ser file", _FIJI),
    (0, b"\x49\x49\x97\x01", "a TIA .ser file", _FIJI),
    (0, b"\x93NUMPY", "a NumPy array", "write it with tifffile.imwrite(path, array)"),
    (344, b"n+1\x00", "a NIfTI file", _MEDICAL),
    (344, b"ni1\x00", "a NIfTI header", _MEDICAL),
    (4, b"n+2\x00\r\n\x1a\n", "a NIfTI 2 file", _MEDICAL),
    (0, b"NRRD", "an NRRD file", "open it in Fiji and save it as TIFF"),
    (0, b"ObjectType", "a MetaImage header", "open it in Fiji and save it as TIFF"),
    (0, b"# AmiraMesh", "an Amira file", "save it as TIFF in Amira or Avizo"),
    (0, b"# Avizo", "an Avizo file", "save it as TIFF in Amira or Avizo"),
    (0, b"# vtk", "a VTK file", "save it as TIFF, in ParaView or Fiji"),
    (0, b"%PDF", "a PDF document", "export the images as TIFF"),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "run git lfs pull",
    ),
    (0, b"\x89HDF", "an HDF5 file", "give it with the dataset in it, such as stack.h5/volumes/raw"),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it first (gunzip)"),
    (0, b"BZh", "compressed with bzip2", "unpack it first (bunzip2)"),
    (0, b"\xfd7zXZ", "compressed with xz", "unpack it first (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (unzstd)"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first, and give the folder or file in it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it first, and give the folder or file in it"),
    (0, b"Rar!", "a RAR archive", "unpack it first, and give the folder or file in it"),
    (257, b"ustar", "a tar archive", "unpack it first, and give the folder or file in it"),
    (0, b"BM", "a BMP image", "save it as TIFF or PNG"),
    (0, b"\x89PNG", "a PNG image", "give it a name that ends in .png"),
)
# Names of formats without a mark of their own, or whose mark is another format's.
_SUFFIXES: dict[str, tuple[str, str]] = {
    ".vsi": ("an Olympus VSI file", _FIJI),
    ".ets": ("image data of an Olympus VSI file", "open the .vsi file beside it in Fiji"),
    ".czi": ("a Zeiss CZI file", _FIJI),
    ".lif": ("a Leica LIF file", _FIJI),
    ".nd2": ("a Nikon ND2 file", _FIJI),
    ".oib": ("an Olympus OIB file", _FIJI),
    ".oir": ("an Olympus OIR file", _FIJI),
    ".dm3": ("a Gatan DM3 file", _FIJI),
    ".dm4": ("a Gatan DM4 file", _FIJI),
    ".ser": ("a TIA .ser file", _FIJI),
    ".emd": ("a Velox EMD file", "save it as TIFF in Velox, or open it in Fiji"),
    ".emi": ("a TIA .emi file", _FIJI),
    ".em": ("an EM file", "save it as MRC or TIFF, in IMOD or Fiji"),
    ".dat": ("a .dat file", "save it as TIFF in the microscope's software or Fiji"),
    ".raw": (
        "raw bytes without a record of their shape",
        "import it in Fiji (File > Import > Raw) and save it as TIFF",
    ),
    ".bin": (
        "raw bytes without a record of their shape",
        "import it in Fiji (File > Import > Raw) and save it as TIFF",
    ),
    ".nii": ("a NIfTI file", _MEDICAL),
    ".hdr": ("an Analyze or NIfTI header", _MEDICAL),
    ".img": ("an Analyze or NIfTI image", _MEDICAL),
    ".nrrd": ("an NRRD file", "open it in Fiji and save it as TIFF"),
    ".mha": ("a MetaImage file", "open it in Fiji and save it as TIFF"),
    ".mhd": ("a MetaImage header", "open it in Fiji and save it as TIFF"),
    ".am": ("an Amira file", "save it as TIFF in Amira or Avizo"),
    ".jpg": ("a JPEG image", _LOSSY),
    ".jpeg": ("a JPEG image", _LOSSY),
    ".jp2": ("a JPEG 2000 image", "save it as TIFF or PNG"),
    ".bmp": ("a BMP image", "save it as TIFF or PNG"),
    ".gif": ("a GIF image", "save it as TIFF or PNG"),
    ".npy": ("a NumPy array", "write it with tifffile.imwrite(path, array)"),
    ".npz": ("NumPy arrays", "write one with tifffile.imwrite(path, array)"),
    ".mat": ("a MATLAB file", "write its array as TIFF, with imwrite in MATLAB"),
    ".zip": ("a zip archive", "unpack it first, and give the folder or file in it"),
    ".ome": ("OME-XML without pixels", "give one of the TIFF files that it names"),
    ".xml": ("an XML file", "give the image file or folder that it describes"),
    ".csv": ("a CSV file", "give images; a pairing of labels goes to --labels_csv"),
}
_TEXT = (b"<!DOCTYPE", b"<html", b"<HTML", b"<?xml", b"<OME", b"{", b"structure,")
_HEAD = 512
_NEEDED = "TIFF or PNG slices or another format of those in --help are needed"
# Formats of the parts of a compound suffix, for what gzip hides.
_PACKED = {".nii": "a NIfTI file", ".tif": "a TIFF file", ".tiff": "a TIFF file"}


def explain(path: Path) -> str:
    """What a file that no reader knows is, and what to do, for a message behind its name.

    Looks at the first bytes, then at the name.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
    suffix = path.suffix.lower()
    if not head:
        return f"the file is empty; {_NEEDED}"
    if head.strip(b"\0") == b"" and _is_blank(path):
        return f"holds {size:,} bytes of 0 and nothing else, a copy that failed; copy it again"
    for offset, mark, name, remedy in _MAGIC:
        if head[offset : offset + len(mark)] == mark and _fits(mark, head, suffix):
            if mark == b"\x1f\x8b":
                name = f"{_PACKED.get(Path(path.stem).suffix.lower(), 'a file')} {name}"
            return (
                f"is {name}, which is not read; {remedy}"
                if "," not in name
                else (f"is {name}; {remedy}")
            )
    if head.lstrip().startswith(_TEXT[:3]):
        return "is a web page, not the file itself; download it again"
    if suffix in _SUFFIXES:
        name, remedy = _SUFFIXES[suffix]
        return f"is {name}, which is not read; {remedy}"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_TEXT):
        return f"is a text file; {_NEEDED}"
    kind = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG"}.get(suffix)
    if kind:
        return (
            f"not a {kind} file, though its name says so (it begins with {head[:8]!r}); {_NEEDED}"
        )
    return f"of no format that is known here (it begins with {head[:8]!r}); {_NEEDED}"


def is_foreign(path: Path) -> bool:
    """Whether a file that looks like TIFF is known to hold its pixels elsewhere."""
    return path.suffix.lower() == ".vsi"


def describe_folder(names: Sequence[str]) -> str:
    """What a folder without slices holds, for a message: "24 files .jpg (JPEG images)"."""
    if not names:
        return "it is empty"
    kinds = Counter(Path(name).suffix.lower() for name in names)
    suffix, count = kinds.most_common(1)[0]
    if suffix not in _SUFFIXES:
        return f"{len(names)} other files"
    name, remedy = _SUFFIXES[suffix]
    return (
        f"{count} of its {len(names)} entries end in {suffix}: each is {name}, not read; {remedy}"
    )


def _fits(mark: bytes, head: bytes, suffix: str) -> bool:
    """Whether a short mark is not there by chance."""
    if mark == b"\x70\x00\x00\x00":
        return suffix == ".lif" or head[8:9] == b"\x2a"
    if mark == b"BM":
        return suffix == ".bmp" or head[6:10] == b"\0\0\0\0"
    return True


def _is_blank(path: Path) -> bool:
    with open(path, "rb") as file:
        return all(not any(block) for block in iter(lambda: file.read(2**20), b""))
