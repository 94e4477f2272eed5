import cc3d
import numpy as np
import pytest
from scipy import ndimage

from vemseg_jax.measure.components import ComponentStream, Table

ORDERS = {6: 1, 18: 2, 26: 3}


def stream(labels, *, planes, connectivity, min_voxels=1):
    slabs = [labels[z : z + planes] for z in range(0, len(labels), planes)]
    found = ComponentStream(
        plane=labels.shape[1:], connectivity=connectivity, min_voxels=min_voxels
    )
    for slab in slabs:
        found.add(slab)
    components = found.finish()
    ids = np.concatenate([components.ids(slab, i) for i, slab in enumerate(slabs)])
    return components.table, ids, found


def random_labels(seed, density, shape=(13, 11, 12)):
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < density).astype(np.uint8)
    labels[rng.random(shape) < 0.02] = 255
    return labels


def same_partition(a, b):
    """Whether two labellings differ by the numbers alone."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()], axis=1).astype(np.int64), axis=0)
    return len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("density", [0.03, 0.12, 0.25, 0.4])
def test_any_slab_size_equals_the_whole_volume(connectivity, density):
    structure = ndimage.generate_binary_structure(3, ORDERS[connectivity])
    for seed in range(3):
        labels = random_labels(seed, density)
        whole, count = ndimage.label(labels == 1, structure)
        by_library = cc3d.connected_components(labels == 1, connectivity=connectivity)
        tables = []
        for planes in (1, 2, 3, 4, 7, 13):
            table, ids, _ = stream(labels, planes=planes, connectivity=connectivity)
            assert len(table) == count
            assert same_partition(ids, whole)
            assert same_partition(ids, by_library)
            tables.append((table, ids))
        for table, ids in tables[1:]:
            np.testing.assert_array_equal(ids, tables[0][1])
            for name in Table.__annotations__:
                np.testing.assert_array_equal(getattr(table, name), getattr(tables[0][0], name))


def test_table_against_scipy():
    labels = random_labels(7, 0.15)
    table, ids, _ = stream(labels, planes=3, connectivity=26)
    rows = np.arange(1, len(table) + 1)
    boxes = ndimage.find_objects(ids)
    np.testing.assert_array_equal(table.voxels, np.bincount(ids.ravel())[1:])
    np.testing.assert_allclose(table.centroids(), ndimage.center_of_mass(ids > 0, ids, rows))
    np.testing.assert_array_equal(table.low, [[s.start for s in box] for box in boxes])
    np.testing.assert_array_equal(table.high, [[s.stop for s in box] for box in boxes])


def test_a_spiral_joins_late():
    """Two arms that meet in the last plane only are one object from the first plane on."""
    labels = np.zeros((9, 5, 7), np.uint8)
    labels[:, 2, 1] = labels[:, 2, 5] = 1
    labels[8, 2, 1:6] = 1
    for planes in (1, 2, 4):
        table, ids, _ = stream(labels, planes=planes, connectivity=6)
        assert len(table) == 1
        assert table.voxels[0] == 21
        np.testing.assert_array_equal(ids, labels)


@pytest.mark.parametrize(
    ("connectivity", "shift", "count"),
    [
        (6, (0, 0), 1),
        (6, (0, 1), 2),
        (18, (0, 1), 1),
        (18, (1, 0), 1),
        (18, (1, 1), 2),
        (18, (-1, 1), 2),
        (26, (1, 1), 1),
        (26, (-1, 1), 1),
        (26, (1, -1), 1),
        (26, (2, 0), 2),
    ],
)
def test_neighbours_across_slabs(connectivity, shift, count):
    labels = np.zeros((2, 7, 7), np.uint8)
    labels[0, 3, 3] = labels[1, 3 + shift[0], 3 + shift[1]] = 1
    assert len(stream(labels, planes=1, connectivity=connectivity)[0]) == count


def test_small_objects_are_dropped_and_counted():
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[0:4, 1, 1] = 1
    labels[0:2, 5, 5] = 1
    labels[5, 6, 6] = 1
    table, ids, found = stream(labels, planes=2, connectivity=26, min_voxels=4)
    assert table.voxels.tolist() == [4]
    assert (found.dropped, found.dropped_voxels) == (2, 3)
    assert ids[:, 5:].sum() == 0


def test_nothing_there():
    table, ids, found = stream(np.full((4, 5, 6), 255, np.uint8), planes=3, connectivity=26)
    assert (len(table), int(ids.max()), found.dropped) == (0, 0, 0)


def test_finished_objects_leave_memory():
    """What grows with the volume is what is kept, not what was seen."""
    rng = np.random.default_rng(0)
    found = ComponentStream(plane=(40, 40), connectivity=6, min_voxels=1000)
    sizes = []
    for _ in range(12):
        found.add((rng.random((4, 40, 40)) < 0.1).astype(np.uint8))
        sizes.append(len(found._open) + len(found._pieces) + found._done_count)
    assert max(sizes[6:]) < 2 * sizes[0]
    assert found.dropped > 5 * max(sizes)
