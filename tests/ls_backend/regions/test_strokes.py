"""Brush strokes become points that lie in them, spread out."""

import numpy as np
from hypothesis import given, settings
from scipy.spatial.distance import pdist

from ls_backend.regions.strokes import stroke_points
from tests.ls_backend.regions.drawn import blobs


@settings(deadline=None, max_examples=60)
@given(blobs)
def test_points_lie_on_the_stroke(mask):
    points = stroke_points(mask)
    assert 1 <= len(points) <= 8
    columns, rows = points.astype(int).T
    assert mask[rows, columns].all()


def test_a_dab_is_one_point_in_its_middle():
    rows, columns = np.mgrid[:60, :80]
    assert stroke_points(np.hypot(rows - 20, columns - 50) < 7).tolist() == [[50, 20]]


def test_a_long_stroke_is_covered():
    mask = np.zeros((60, 300), bool)
    mask[30:37, 10:290] = True
    points = stroke_points(mask)
    assert len(points) == 8
    assert set(points[:, 1]) == {33}
    assert pdist(points).min() > 14
    assert np.ptp(points[:, 0]) > 260


def test_a_large_stroke_is_looked_at_coarsely():
    mask = np.zeros((1000, 2000), bool)
    mask[500:520, 100:1900] = True
    points = stroke_points(mask)
    columns, rows = points.astype(int).T
    assert len(points) == 8
    assert mask[rows, columns].all()


def test_no_stroke():
    assert stroke_points(np.zeros((5, 5), bool)).shape == (0, 2)
