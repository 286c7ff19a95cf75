"""Regions of Label Studio as masks."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.draw import polygon2mask

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.brush_rle import encode_brush
from sam2_core.labelstore.formats.label_studio_regions import (
    fill_polygon,
    region_kind,
    region_labels,
    region_mask,
)

SIZE = (30, 40)


def region(kind, **value):
    return {"type": kind, "value": value, "original_width": SIZE[1], "original_height": SIZE[0]}


def data_url(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def mask():
    return np.random.default_rng(0).random(SIZE) > 0.7


@pytest.mark.parametrize(
    ("kind", "known"),
    [("brushlabels", "brush"), ("magicwand", "brush"), ("ellipse", "ellipse"), ("choices", None), (None, None)],
)
def test_kinds(kind, known):
    assert region_kind({"type": kind}) == known


def test_brush(mask):
    np.testing.assert_array_equal(region_mask(region("brushlabels", rle=encode_brush(mask)), SIZE), mask)


def test_bitmasks(mask):
    # Label Studio draws black on nothing
    black = np.zeros((*SIZE, 4), np.uint8)
    black[..., 3] = mask * 255
    for pixels in (black, (mask * 255).astype(np.uint8)):
        np.testing.assert_array_equal(region_mask(region("bitmask", imageDataURL=data_url(pixels)), SIZE), mask)


def test_a_copy_of_another_size():
    rows, columns = np.mgrid[:30, :40]
    mask = np.hypot(rows - 14, columns - 20) < 9
    twice = region_mask(region("brush", rle=encode_brush(mask)), (60, 80))
    np.testing.assert_array_equal(twice, np.kron(mask, np.ones((2, 2), bool)))
    with pytest.raises(InputError, match="40 x 30 pixels, but the image has 30 x 40"):
        region_mask(region("brush", rle=encode_brush(mask)), (40, 30))
    with pytest.raises(InputError, match="40 x 30 pixels, but the image has 30 x 40"):
        region_mask(region("bitmask", imageDataURL=data_url(mask)), (40, 30))


def test_a_turned_rectangle():
    # by 30 degrees about (10, 5): 20 x 10 pixels
    value = {"x": 25, "y": 100 / 6, "width": 50, "height": 100 / 3, "rotation": 30}
    found = region_mask(region("rectanglelabels", **value), SIZE)
    rows, columns = np.mgrid[:30, :40] + 0.5
    along, across = np.deg2rad(30), np.deg2rad(120)
    one = (columns - 10) * np.cos(along) + (rows - 5) * np.sin(along)
    other = (columns - 10) * np.cos(across) + (rows - 5) * np.sin(across)
    np.testing.assert_array_equal(found, (one > 0) & (one < 20) & (other > 0) & (other < 10))


def test_an_ellipse():
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 90}
    found = region_mask(region("ellipse", **value), SIZE)
    rows, columns = np.mgrid[:30, :40] + 0.5
    expected = ((columns - 20) / 6) ** 2 + ((rows - 15) / 10) ** 2 < 1
    assert (found != expected).sum() <= 2


corners = st.lists(st.tuples(st.integers(-36, 200), st.integers(-36, 160)), min_size=3, max_size=3)


@settings(deadline=None)
@given(corners)
def test_triangles(points):
    # moved so that no edge meets the centre of a pixel, where it is open what is inside
    points = np.array(points) / 4 + 1e-3 * np.sqrt([2, 3])
    np.testing.assert_array_equal(fill_polygon(points, SIZE), polygon2mask(SIZE, points[:, ::-1]))


def test_a_polygon_is_filled_where_its_outline_winds():
    square = np.array([[2, 2], [20, 2], [20, 20], [2, 20]]) - 0.5
    inner = np.array([[5, 5], [9, 5], [9, 9], [5, 9]]) - 0.5
    same, opposite = (
        fill_polygon(np.concatenate([square, square[:1], ring, ring[:1]]), SIZE) for ring in (inner, inner[::-1])
    )
    assert same.sum() == 18 * 18
    assert opposite.sum() == 18 * 18 - 16


def test_a_polygon_of_many_edges():
    turn = np.linspace(0, 2 * np.pi, 300_000, endpoint=False)
    circle = np.stack([500 + 400 * np.cos(turn), 500 + 400 * np.sin(turn)], axis=1)
    assert fill_polygon(circle, (1000, 1000)).sum() == pytest.approx(np.pi * 400**2, rel=1e-3)


def test_labels():
    regions = [
        {"id": "a", "type": "brushlabels", "value": {"brushlabels": ["Cell", "Dirt"]}},
        {"id": "b", "type": "brush", "value": {"rle": []}},
        {"id": "b", "type": "labels", "value": {"rle": [], "labels": ["Dirt"]}},
        {"id": "c", "type": "videorectangle", "value": {"labels": ["Cell"]}},
        {"id": "d", "type": "brush", "value": {}},
        {"id": "e", "type": "relation"},
    ]
    assert region_labels(regions) == ["Cell", "Dirt", "Dirt", "Cell", None, None]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"type": "brush"}, "no value"),
        (region("brush"), "no rle"),
        (region("brush", rle="abc"), "no rle"),
        (region("brush", rle=[300]), "0 to 255"),
        (region("bitmask", imageDataURL="data:image/png;base64,AAAA"), "data URL of a PNG"),
        (region("polygon", points=[[1, 2]]), "three pairs"),
        (region("polygon", points=[[1, 2], [3, 4], [5]]), "three pairs"),
        (region("rectangle", x=1, y=2, width=None, height=3), "its width has to be a number"),
        (region("ellipse", x=1, y=2, radiusX=True, radiusY=3), "its radiusX has to be a number"),
        (region("keypoint", x=1, y=2), "has no corners"),
        (region("brush", rle=[]) | {"original_width": 0}, "0 x 30 pixels"),
        (region("brush", rle=[]) | {"original_width": 40000, "original_height": 30000}, "40000 x 30000 pixels"),
    ],
)
def test_damaged_regions(bad, message):
    with pytest.raises(InputError, match=message):
        region_mask(bad, SIZE)


def test_a_stroke_on_a_copy_that_would_fill_the_memory_is_refused():
    # a few bytes, which would become a gigabyte
    region = {"type": "brushlabels", "original_width": 12_000, "original_height": 12_000, "value": {"rle": [0] * 9}}
    with pytest.raises(InputError, match="drawn on an image of 12000 x 12000"):
        region_mask(region, (1500, 1500))
