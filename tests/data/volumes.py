"""One small stack in every format, each written by the format's own library."""

import json
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import tensorstore as ts
import tifffile
import zarr

SHAPE = (5, 40, 48)
STACK = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
VOXEL_SIZE = (50.0, 8.0, 10.0)


def tiff_folder(path, data=STACK):
    path.mkdir()
    for z, plane in enumerate(data):
        tifffile.imwrite(path / f"s_{z}.tif", plane)
    return path


def tiff_stack(path, data=STACK, **options):
    tifffile.imwrite(path.with_suffix(".tif"), data, metadata={"axes": "ZYX"}, **options)
    return path.with_suffix(".tif")


def big_tiff(path, data=STACK):
    return tiff_stack(path, data, bigtiff=True)


def ome_tiff(path, data=STACK):
    z, y, x = VOXEL_SIZE
    metadata = {"axes": "ZYX"}
    for axis, size in (("Z", z), ("Y", y), ("X", x)):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    tifffile.imwrite(path.with_suffix(".ome.tif"), data, ome=True, metadata=metadata)
    return path.with_suffix(".ome.tif")


def _multiscales(version):
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": list(VOXEL_SIZE)}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    image = {"name": "image", "axes": axes, "datasets": datasets}
    return {"multiscales": [image | ({"version": version} if version == "0.4" else {})]}


def ome_zarr_04(path, data=STACK):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=data, chunks=(2, 16, 16))
    group.attrs.update(_multiscales("0.4"))
    return path


def ome_zarr_05(path, data=STACK):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=data, chunks=(2, 16, 16), dimension_names=list("zyx"))
    group.attrs["ome"] = {"version": "0.5", **_multiscales("0.5")}
    return path


def zarr_2(path, data=STACK):
    zarr.create_array(path, data=data, chunks=(2, 16, 16), zarr_format=2)
    return path


def zarr_3(path, data=STACK):
    zarr.create_array(path, data=data, chunks=(2, 16, 16), zarr_format=3, shards=(4, 48, 48))
    return path


def _tensorstore(path, driver, metadata, data):
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    array = ts.open(spec | metadata, create=True).result()
    array.write(data).result()
    return path


def n5(path, data=STACK):
    """As N5 writers of the Java world do: x first, with the resolution beside."""
    metadata = {
        "dataType": data.dtype.name,
        "dimensions": list(data.shape[::-1]),
        "blockSize": [16, 16, 2],
        "compression": {"type": "gzip"},
        "axes": ["x", "y", "z"],
        "pixelResolution": {"dimensions": list(VOXEL_SIZE[::-1]), "unit": "nm"},
    }
    return _tensorstore(path, "n5", {"metadata": metadata}, data.T)


def precomputed(path, data=STACK):
    scale = {
        "size": list(data.shape[::-1]),
        "resolution": list(VOXEL_SIZE[::-1]),
        "chunk_size": [16, 16, 2],
        "voxel_offset": [100, 200, 300],
        "encoding": "raw",
    }
    metadata = {"data_type": data.dtype.name, "num_channels": 1, "type": "image"}
    options = {"multiscale_metadata": metadata, "scale_metadata": scale}
    return _tensorstore(path, "neuroglancer_precomputed", options, data.T[..., None])


def hdf5(path, data=STACK):
    """As elf and BigCat write: the size of a voxel in micrometres beside the dataset."""
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        dataset = file.create_dataset(
            "volumes/raw", data=data, chunks=(2, 16, 16), compression="gzip"
        )
        dataset.attrs["element_size_um"] = [size / 1000 for size in VOXEL_SIZE]
    return path.with_suffix(".h5")


def mrc(path, data=STACK):
    path = path.with_suffix(".mrc")
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.uint16) if data.dtype == np.uint8 else data)
        file.voxel_size = tuple(10 * size for size in VOXEL_SIZE[::-1])
    return path


# With what it takes to convert each: nothing where the file records it all.
BARE = {"voxel_size": VOXEL_SIZE}
FORMATS = {
    "TIFF folder": (tiff_folder, BARE),
    "TIFF stack": (tiff_stack, BARE),
    "BigTIFF": (big_tiff, BARE),
    "OME-TIFF": (ome_tiff, {}),
    "OME-Zarr 0.4": (ome_zarr_04, {}),
    "OME-Zarr 0.5": (ome_zarr_05, {}),
    "Zarr 2": (zarr_2, {"axes": "zyx", **BARE}),
    "Zarr 3": (zarr_3, {"axes": "zyx", **BARE}),
    "N5": (n5, {}),
    "precomputed": (precomputed, {}),
    "HDF5": (hdf5, {}),
    "MRC": (mrc, {}),
}


def edit_json(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
