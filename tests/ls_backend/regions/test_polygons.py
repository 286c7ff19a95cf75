"""Polygons show their masks, with holes and parts, whatever fills them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from skimage.draw import polygon2mask

from ls_backend.regions.polygons import mask_polygons
from sam2_core.labelstore.formats.label_studio_regions import fill_polygon
from sam2_core.metrics import iou
from tests.ls_backend.regions.drawn import blob, blobs


def filled(polygons, size, fill):
    shown = np.zeros(size, bool)
    for corners in polygons:
        shown |= fill(corners - 0.5)
    return shown


def check(mask):
    polygons = mask_polygons(mask)
    size = mask.shape
    assert all(len(corners) > 2 for corners in polygons)
    assert iou(filled(polygons, size, lambda c: fill_polygon(c, size)), mask) > 0.98
    assert iou(filled(polygons, size, lambda c: polygon2mask(size, c[:, ::-1])), mask) > 0.98
    return polygons


@settings(deadline=None, max_examples=150)
@given(blobs)
@example(blob(373, 21, 24, 1.0, 0.6))
def test_blobs_with_holes_and_parts(mask):
    check(mask)


@settings(deadline=None, max_examples=60)
@given(blobs)
def test_small_masks(mask):
    rows, columns = np.nonzero(mask)
    small = np.zeros_like(mask)
    small[rows[:30], columns[:30]] = True
    polygons = check(small)
    assert (filled(polygons, mask.shape, lambda c: fill_polygon(c, mask.shape)) == small).all()


def test_holes_within_holes():
    rows, columns = np.mgrid[:101, :101]
    mask = (np.hypot(rows - 50, columns - 50) // 8).astype(int) % 2 == 0
    mask &= np.hypot(rows - 50, columns - 50) < 48
    assert len(check(mask)) == 3  # a disc and two rings


def test_a_pixel_and_its_diagonal_neighbour_are_one_polygon():
    (corners,) = mask_polygons(np.eye(2, 4, dtype=bool))
    assert sorted(map(tuple, corners.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_smooth_outline_takes_few_points():
    rows, columns = np.mgrid[:400, :400]
    (corners,) = check(np.hypot(rows - 200, columns - 200) < 150)
    assert len(corners) < 80


def test_specks_and_pinholes_are_left_out():
    mask = np.zeros((200, 200), bool)
    mask[20:180, 20:180] = True
    mask[5, 5] = True
    mask[50, 50] = False
    (corners,) = mask_polygons(mask)
    assert 4 <= len(corners) <= 8


def test_largest_first_and_nothing_for_nothing():
    mask = np.zeros((30, 30), bool)
    assert mask_polygons(mask) == []
    mask[2:4, 2:4] = mask[10:20, 5:25] = True
    first, second = mask_polygons(mask)
    assert np.ptp(first[:, 0]) == pytest.approx(20, abs=1)
    assert second.tolist() == [[2, 2], [4, 2], [4, 4], [2, 4]]
