"""Tiles put together give what the whole plane would have given."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sam2_core.errors import InputError
from sam2_core.predict.automatic_tiles import labels_by_tiles, stitch, tile_boxes


def components(connectivity):
    structure = ndimage.generate_binary_structure(2, connectivity)

    def find(image):
        return ndimage.label(image > 0.5, structure)[0].astype(np.uint32)

    return find


def same_partition(one, other):
    """Whether two label images differ in their numbers at most."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs) and ((one > 0) == (other > 0)).all()


@st.composite
def blobs(draw):
    """Discs and bars, (h, w) in 0 or 1, smaller and larger than the tiles."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    y, x = np.ogrid[:height, :width]
    image = np.zeros((height, width))
    for _ in range(draw(st.integers(0, 12))):
        cy, cx = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        ry, rx = draw(st.integers(1, 25)), draw(st.integers(1, 25))
        disc = (y - cy) ** 2 * rx**2 + (x - cx) ** 2 * ry**2 <= (rx * ry) ** 2
        image[disc] = 1 - image[disc] if draw(st.booleans()) else 1
    return image


@given(blobs(), st.integers(8, 40), st.integers(1, 20), st.sampled_from([1, 2]))
def test_objects_of_any_size_come_out_whole(image, tile, overlap, connectivity):
    find = components(connectivity)
    labels = labels_by_tiles(find, image, tile, min(overlap, tile // 2))
    assert labels.dtype == np.uint32
    assert same_partition(labels, find(image))
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(4, 64))
def test_tiles_cover_the_plane_and_overlap(height, width, tile):
    boxes = tile_boxes((height, width), tile)
    count = np.zeros((height, width), int)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        count[y0:y1, x0:x1] += 1
    assert count.min() == 1
    columns = sorted({(x0, x1) for x0, _, x1, _ in boxes})
    assert all(before[1] - after[0] >= tile // 4 for before, after in pairwise(columns))


def test_a_plane_of_one_tile_is_searched_once():
    calls = []
    labels_by_tiles(lambda tile: calls.append(tile.shape) or np.zeros(tile.shape[:2], int), np.zeros((30, 20, 3)), 32)
    assert calls == [(30, 20, 3)]


def test_a_scrap_at_the_border_of_a_tile_goes():
    boxes = [(0, 0, 20, 10), (12, 0, 32, 10)]
    tiles = np.zeros((2, 10, 20), np.uint32)
    tiles[0, 2:8, 10:18] = 4  # whole
    tiles[1, 3:5, 0:3] = 9  # what the second tile sees of it
    labels = stitch((10, 32), boxes, tiles)
    assert labels.max() == 1
    assert (labels[2:8, 10:18] == 1).all()
    assert labels.sum() == 6 * 8


def test_of_two_views_of_an_overlap_the_smaller_is_on_top():
    boxes = [(0, 0, 20, 10), (12, 0, 32, 10)]
    tiles = np.zeros((2, 10, 20), np.uint32)
    tiles[0, 1:9, 12:19] = 1  # a cell
    tiles[1, 4:6, 2:4] = 1  # its nucleus, not cut off
    for order in ([0, 1], [1, 0]):
        labels = stitch((10, 32), [boxes[n] for n in order], tiles[order])
        assert sorted(np.bincount(labels.ravel())[1:]) == [4, 8 * 7 - 4]


def test_cells_in_contact_stay_two_where_a_tile_sees_one():
    boxes = [(0, 0, 20, 20), (14, 0, 34, 20)]
    tiles = np.zeros((2, 20, 20), np.uint32)
    tiles[0, 2:9, 2:20], tiles[0, 9:16, 2:20] = 1, 2
    tiles[1, 2:16, 0:10] = 1
    labels = stitch((20, 34), boxes, tiles)
    assert labels[4, 4] != labels[12, 4]
    assert labels[4, 4] > 0
    assert labels[12, 4] > 0


@pytest.mark.parametrize(("tile", "overlap"), [(3, None), (16, 16), (16, 0)])
def test_tiles_must_overlap(tile, overlap):
    with pytest.raises(InputError, match="overlap"):
        tile_boxes((40, 40), tile, overlap)
