"""The pages of TIFF files count, whatever their descriptions claim, and sets of files are whole."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from vemseg_jax.data.formats.open import open_source
from vemseg_jax.data.formats.tiff.reader import OPEN_FILES
from vemseg_jax.errors import InputError

DEPTH = 6
STACK = np.random.default_rng(0).integers(0, 256, (DEPTH, 40, 48), np.uint8)
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
IMAGEJ = "ImageJ=1.53t\nimages={0}\nslices={0}\nloop=false\n"


def _read(source):
    return np.stack([source.read(z) for z in range(source.shape[0])])


def _save(path, planes, **options):
    tifffile.imwrite(path, planes, **{"metadata": None, "photometric": "minisblack", **options})


def _add(tif, plane, **options):
    tif.write(plane, metadata=None, photometric="minisblack", **options)


def _description(path):
    with tifffile.TiffFile(path) as tif:
        return tif.pages.first.description


def _xml(data, *, depth=DEPTH, own="", channels=1):
    root = f'UUID="{own}"' if own else ""
    return (
        f'<?xml version="1.0"?><OME xmlns="{_OME}" {root}><Image ID="Image:0"><Pixels'
        f' ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="48" SizeY="40" SizeZ="{depth}"'
        f' SizeC="{channels}" SizeT="1">{data}</Pixels></Image></OME>'
    )


def _urn(number):
    return f"urn:uuid:{uuid.UUID(int=number + 1)}"


def _set(folder, stack=STACK, *, per=1, order=None, name="s_{:03d}.ome.tif", **options):
    """A set of OME-TIFF files of `per` pages each; slice z is in file `order[z // per]`."""
    folder.mkdir(exist_ok=True)
    files = len(stack) // per
    order = order or list(range(files))
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z % per}" PlaneCount="1"><UUID'
        f' FileName="{name.format(order[z // per])}">{_urn(order[z // per])}</UUID></TiffData>'
        for z in range(len(stack))
    )
    for part in range(files):
        with tifffile.TiffWriter(folder / name.format(order[part])) as tif:
            for i in range(per):
                xml = _xml(data, depth=len(stack), own=_urn(order[part])) if i == 0 else None
                tif.write(
                    stack[part * per + i],
                    description=xml,
                    metadata=None,
                    photometric="minisblack",
                    **options,
                )
    return folder


@pytest.mark.parametrize("per", [1, 2, 3])
def test_a_set_reads_whole_from_its_folder_and_from_each_file(tmp_path, per):
    folder = _set(tmp_path / "set", per=per, compression="zlib")
    for path in (folder, *sorted(folder.iterdir())):
        np.testing.assert_array_equal(_read(open_source(path)), STACK)


def test_a_set_is_read_right_by_several_threads(tmp_path):
    stack = np.arange(24, dtype=np.uint8)[:, None, None] + np.zeros((24, 200, 300), np.uint8)
    folder = _set(tmp_path / "set", stack, per=6, compression="zlib", rowsperstrip=8)
    for _ in range(8):
        source = open_source(folder / "s_000.ome.tif")
        with ThreadPoolExecutor(6) as pool:
            planes = list(pool.map(source.read, range(24)))
        np.testing.assert_array_equal(np.stack(planes), stack)


def test_a_set_of_more_files_than_are_kept_open(tmp_path):
    stack = np.random.default_rng(1).integers(0, 256, (2 * OPEN_FILES, 8, 9), np.uint8)
    folder = _set(tmp_path / "set", stack)
    source = open_source(folder / "s_003.ome.tif")
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(source.read, [*range(len(stack)), *range(len(stack))]))
    np.testing.assert_array_equal(np.stack(planes), np.concatenate([stack, stack]))


def test_files_of_a_set_may_be_compressed_in_different_ways(tmp_path):
    folder = _set(tmp_path / "set")
    xml = _description(folder / "s_002.ome.tif")
    _save(folder / "s_002.ome.tif", STACK[2], description=xml, metadata=None, compression="lzw")
    np.testing.assert_array_equal(_read(open_source(folder / "s_000.ome.tif")), STACK)


def test_the_order_is_that_of_the_xml(tmp_path):
    folder = _set(tmp_path / "set", order=[3, 1, 0, 2, 5, 4])
    source = open_source(folder)
    np.testing.assert_array_equal(_read(source), STACK)
    assert source.names[0] == "s_003.ome.tif"
    assert any("order of the OME-XML" in note for note in source.notes)


def test_missing_files_of_a_set_are_named(tmp_path):
    folder = _set(tmp_path / "set")
    (folder / "s_001.ome.tif").unlink()
    (folder / "s_004.ome.tif").unlink()
    with pytest.raises(InputError, match=r"2 are not in .*: s_001\.ome\.tif, s_004\.ome\.tif; put"):
        open_source(folder / "s_000.ome.tif")
    source = open_source(folder)
    np.testing.assert_array_equal(_read(source), STACK[[0, 2, 3, 5]])
    assert any("s_001.ome.tif, s_004.ome.tif" in note for note in source.notes)


def test_renamed_files_are_known_by_their_uuid(tmp_path):
    folder = _set(tmp_path / "set", order=[1, 0, 2, 3, 4, 5])
    for file in list(folder.iterdir()):
        file.rename(file.with_name("z" + file.name))
    np.testing.assert_array_equal(_read(open_source(folder)), STACK)


def test_another_file_under_the_name_of_one_of_the_set_is_refused(tmp_path):
    folder = _set(tmp_path / "set")
    (folder / "s_002.ome.tif").write_bytes((folder / "s_003.ome.tif").read_bytes())
    with pytest.raises(InputError, match=r"s_002\.ome\.tif: not the file that the OME-XML"):
        open_source(folder / "s_000.ome.tif")
    with pytest.raises(InputError, match="different orders"):
        open_source(folder)


def test_a_stranger_among_files_of_several_slices_is_refused(tmp_path):
    folder = _set(tmp_path / "set", per=2)
    _save(folder / "z_other.tif", STACK[0])
    with pytest.raises(InputError, match=r"z_other\.tif is no part of it"):
        open_source(folder)


def test_a_plain_file_among_those_of_a_set_keeps_its_place(tmp_path):
    folder = _set(tmp_path / "set")
    for z in (0, 2):
        _save(folder / f"s_{z:03d}.ome.tif", STACK[z])
    np.testing.assert_array_equal(_read(open_source(folder)), STACK)
    (folder / "s_001.ome.tif").rename(folder / "z_001.ome.tif")
    np.testing.assert_array_equal(_read(open_source(folder)), STACK)
    (folder / "s_002.ome.tif").rename(folder / "t_002.ome.tif")
    with pytest.raises(InputError, match="different orders"):
        open_source(folder)


def test_metadata_in_another_file(tmp_path):
    folder = _set(tmp_path / "set", per=3)
    xml = _description(folder / "s_000.ome.tif")
    (folder / "set.companion.ome").write_text(xml)
    for part in range(2):
        text = f'<OME xmlns="{_OME}"><BinaryOnly MetadataFile="set.companion.ome"/></OME>'
        planes = STACK[3 * part : 3 * part + 3]
        _save(
            folder / f"s_{part:03d}.ome.tif",
            planes,
            description=text,
            metadata=None,
            photometric="minisblack",
        )
    np.testing.assert_array_equal(_read(open_source(folder)), STACK)
    np.testing.assert_array_equal(_read(open_source(folder / "s_001.ome.tif")), STACK)
    (folder / "set.companion.ome").unlink()
    source = open_source(folder / "s_001.ome.tif")
    np.testing.assert_array_equal(_read(source), STACK[3:])
    assert any("set.companion.ome" in note for note in source.notes)


def test_sets_of_several_channels_are_refused(tmp_path):
    data = "".join(
        f'<TiffData FirstZ="{z}" FirstC="{c}" PlaneCount="1"><UUID'
        f' FileName="c{c}_{z}.tif">{_urn(3 * c + z)}</UUID></TiffData>'
        for c in range(2)
        for z in range(3)
    )
    for c in range(2):
        for z in range(3):
            xml = _xml(data, depth=3, own=_urn(3 * c + z), channels=2)
            _save(
                tmp_path / f"c{c}_{z}.tif",
                STACK[z],
                description=xml,
                metadata=None,
                photometric="minisblack",
            )
    with pytest.raises(InputError, match="2 channels and 1 times"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="a set of 2 channels"):
        open_source(tmp_path / "c0_0.tif")


@pytest.mark.parametrize("claimed", [3, 9])
@pytest.mark.parametrize(
    "description",
    [
        IMAGEJ.format,
        lambda n: _xml("<TiffData/>", depth=n),
        lambda n: f'{{"shape": [{n}, 40, 48]}}',
    ],
    ids=["imagej", "ome", "shaped"],
)
def test_pages_count_not_descriptions(tmp_path, claimed, description):
    path = tmp_path / "s.tif"
    _save(path, STACK, description=description(claimed))
    source = open_source(path)
    np.testing.assert_array_equal(_read(source), STACK)
    assert any(f"claims {claimed} slices, but 6 pages are there" in n for n in source.notes)


def test_a_split_stack_keeps_its_description(tmp_path):
    for z in range(DEPTH):
        _save(tmp_path / f"s{z}.tif", STACK[z], description=IMAGEJ.format(DEPTH), metadata=None)
    source = open_source(tmp_path)
    np.testing.assert_array_equal(_read(source), STACK)
    assert any("6 of 6 files are those of a whole stack" in note for note in source.notes)


def test_one_channel_of_a_split_hyperstack(tmp_path):
    path = tmp_path / "s.tif"
    text = "ImageJ=1.53t\nimages=12\nchannels=2\nslices=6\nhyperstack=true\n"
    _save(path, STACK, description=text)
    np.testing.assert_array_equal(_read(open_source(path)), STACK)
    _save(path, STACK[:4], description=text)
    with pytest.raises(InputError, match="12 planes of several channels or times, but 4 pages"):
        open_source(path)
    np.testing.assert_array_equal(_read(open_source(path, axes="zyx")), STACK[:4])


def test_planes_without_a_page_number(tmp_path):
    data = "".join(f'<TiffData FirstZ="{z}"/>' for z in range(DEPTH))
    _save(tmp_path / "s.tif", STACK, description=_xml(data))
    np.testing.assert_array_equal(_read(open_source(tmp_path / "s.tif")), STACK)


def test_planes_in_another_order_than_pages(tmp_path):
    data = "".join(f'<TiffData FirstZ="{z}" IFD="{5 - z}" PlaneCount="1"/>' for z in range(DEPTH))
    _save(
        tmp_path / "s.tif",
        STACK[::-1],
        description=_xml(data),
        metadata=None,
        photometric="minisblack",
    )
    np.testing.assert_array_equal(_read(open_source(tmp_path / "s.tif")), STACK)


def test_pages_written_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "loop.tif") as tif:
        for plane in STACK:
            tif.write(plane)
    np.testing.assert_array_equal(_read(open_source(tmp_path / "loop.tif")), STACK)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tif:
        for plane, codec in zip(STACK, ["zlib", None, "lzw"] * 2, strict=True):
            _add(tif, plane, compression=codec)
    np.testing.assert_array_equal(_read(open_source(tmp_path / "mixed.tif")), STACK)


def test_thumbnails_are_left_out_and_two_stacks_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "thumbs.tif") as tif:
        for plane in STACK:
            tif.write(plane)
            tif.write(plane[::4, ::4].copy(), subfiletype=1)
    source = open_source(tmp_path / "thumbs.tif")
    np.testing.assert_array_equal(_read(source), STACK)
    assert any("6 of its 12 pages are marked as thumbnails" in note for note in source.notes)
    with tifffile.TiffWriter(tmp_path / "two.tif") as tif:
        tif.write(STACK)
        tif.write(STACK)
    with pytest.raises(InputError, match=r"holds 2 images .* by its metadata"):
        open_source(tmp_path / "two.tif")
    assert open_source(tmp_path / "two.tif", axes="zyx").shape[0] == 2 * DEPTH


def test_bytes_behind_the_last_page(tmp_path):
    path = tmp_path / "s.tif"
    _save(path, STACK)
    with open(path, "ab") as file:
        file.write(bytes(9000))
    source = open_source(path)
    np.testing.assert_array_equal(_read(source), STACK)
    assert any("bytes belong to none of its 6 page(s)" in note for note in source.notes)
    _save(path, STACK[0])
    with open(path, "ab") as file:
        file.write(STACK[1:].tobytes())
    with pytest.raises(InputError, match="as many bytes as 5 more slices take"):
        open_source(path)


def test_a_raw_stack_cut_short_is_not_taken_as_one_slice(tmp_path):
    path = tmp_path / "s.tif"
    _save(path, STACK, imagej=True, truncate=True)
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(InputError, match=r"truncated or damaged .1 of 6 slices are there"):
        open_source(path)


def test_strips_that_were_never_written_are_not_black(tmp_path):
    path = tmp_path / "s.tif"
    _save(path, STACK[0], metadata=None, rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("StripOffsets", "StripByteCounts"):
            values = list(tif.pages.first.tags[name].value)
            tif.pages.first.tags[name].overwrite([*values[:-1], 0])
    with pytest.raises(InputError, match="never written"):
        open_source(path)
