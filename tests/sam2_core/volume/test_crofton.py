"""Perimeters and surfaces beside those of skimage, and of balls whose surface is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.measure import perimeter_crofton

from sam2_core.volume.crofton import BoundaryMeter, directions


def measured(labels, spacing):
    meter = BoundaryMeter(spacing)
    for plane in labels:
        meter.add(plane)
    return meter.finish()


@given(npst.arrays(np.uint32, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)))
def test_perimeters_are_those_of_skimage(plane):
    found = measured([plane], (1, 1))
    assert set(found) == set(np.unique(plane).tolist()) - {0}
    for label, size in found.items():
        assert size == pytest.approx(perimeter_crofton(np.pad(plane == label, 1), 4))


def test_weights_of_a_cubic_grid_are_those_published():
    published = {1: 0.04577789120476, 2: 0.03698062787608, 3: 0.03519563978232}  # Legland et al. 2007, per direction
    for step, weight in zip(*directions((1, 1, 1))):
        neighbours = np.abs(step).sum()
        assert weight == pytest.approx(2 * 2 * published[neighbours] / neighbours**0.5, rel=1e-4)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 0.5, 0.5), (0.4, 1, 1.5)])
def test_surfaces_of_balls(spacing):
    radius = 10
    shape = [int(2 * radius / s) + 3 for s in spacing]
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    ball = sum(((g - n / 2 + 0.3) * s) ** 2 for g, n, s in zip(grid, shape, spacing)) <= radius**2
    assert measured(ball.astype(np.uint32), spacing)[1] == pytest.approx(4 * np.pi * radius**2, rel=0.03)


def test_halves_in_contact_are_measured_apart():
    cube = np.zeros((12, 12, 12), np.uint32)
    cube[2:6, 2:10, 2:10], cube[6:10, 2:10, 2:10] = 4, 9
    alone = np.where(cube == 4, cube, 0)
    both = measured(cube, (1, 1, 1))
    assert both[4] == pytest.approx(measured(alone, (1, 1, 1))[4])
    assert both[4] == pytest.approx(both[9])


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 2)))
def test_no_axis_is_special(labels):
    spacing = (1.0, 0.7, 2.0)
    found = measured(labels, spacing)
    turned = measured(labels.transpose(2, 0, 1), (2.0, 1.0, 0.7))
    mirrored = measured(labels[::-1, :, ::-1], spacing)
    assert found == pytest.approx(turned)
    assert found == pytest.approx(mirrored)
