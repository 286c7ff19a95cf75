"""What annotators draw becomes points, boxes and masks in pixels, by object."""

import base64
import io
import math
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ls_backend.errors import RequestError
from ls_backend.regions.prompts import read_prompts
from sam2_core.labelstore.formats.brush_rle import encode_brush
from tests.ls_backend.regions.drawn import CONFIG, SIZE, STACK, VIDEO, click, rectangle, region

IMAGE = CONFIG.object("image")


def read(*regions, size=SIZE):
    return read_prompts(list(regions), CONFIG, IMAGE, size)


def read_stack(*regions, frames=5):
    return read_prompts(list(regions), STACK, STACK.object("image"), SIZE, frames)


def only(objects):
    (found,) = objects
    (frame,) = found.frames
    return frame


def stroke(id, rows, columns, **more):
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return region("brush", id, format="rle", rle=encode_brush(mask), **more)


@given(st.integers(0, SIZE[1] - 1), st.integers(0, SIZE[0] - 1))
def test_a_click_on_a_pixel_is_that_pixel(x, y):
    np.testing.assert_allclose(only(read(click("a", x, y))).points, [[x, y]], atol=1e-4)


@given(st.data())
def test_a_rectangle_around_pixels_is_their_box(data):
    x0, y0 = data.draw(st.integers(0, 158)), data.draw(st.integers(0, 118))
    x1, y1 = data.draw(st.integers(x0 + 1, 159)), data.draw(st.integers(y0 + 1, 119))
    expected = np.clip([x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5], 0, [159, 119, 159, 119])
    np.testing.assert_allclose(only(read(rectangle("a", x0, y0, x1, y1))).box, expected, atol=1e-4)


def test_clicks_of_a_label_add_up():
    (found,) = read(click("a", 10, 20), click("b", 30, 40), click("c", 5, 6, positive=False))
    (frame,) = found.frames
    assert (found.key, found.label) == ("a", "Cell")
    np.testing.assert_allclose(frame.points, [[10, 20], [30, 40], [5, 6]], atol=1e-4)
    assert frame.labels.tolist() == [1, 1, 0]
    assert frame.points.dtype == np.float32
    assert frame.labels.dtype == np.int32
    assert frame.box is None
    assert frame.mask is None


def test_labels_are_objects():
    first, second = read(click("a", 10, 20), click("b", 30, 40, label="Dirt"), click("c", 12, 20))
    assert (first.label, len(first.frames[0].points)) == ("Cell", 2)
    assert (second.label, len(second.frames[0].points)) == ("Dirt", 1)


def test_rectangles_are_objects_and_clicks_inside_one_are_its():
    found = read(
        rectangle("a", 10, 10, 40, 40),
        rectangle("b", 35, 10, 80, 40),
        click("c", 20, 20),
        click("d", 70, 20, positive=False),
        click("e", 37, 20),  # inside both
        click("f", 100, 100),
    )
    assert [(o.key, len(o.frames[0].points), o.frames[0].box is not None) for o in found] == [
        ("a", 1, True),
        ("b", 1, True),
        ("e", 2, False),
    ]


def test_all_clicks_are_those_of_the_only_rectangle():
    frame = only(read(rectangle("a", 10, 10, 40, 40), click("b", 45, 20), click("c", 90, 90, positive=False)))
    assert frame.labels.tolist() == [1, 0]
    assert frame.box is not None


def test_points_that_are_no_clicks_are_objects():
    found = read(*(click(id, 10 + 20 * i, 20, positive=None) for i, id in enumerate("abc")))
    assert [o.key for o in found] == ["a", "b", "c"]


@pytest.mark.parametrize("more", [{"parentID": "p"}, {}])
def test_groups(more):
    regions = [rectangle("a", 10, 10, 20, 20, **more), rectangle("b", 40, 40, 60, 60, **more), click("c", 90, 90)]
    if not more:
        regions.append({"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"})
    first, second = read(*regions)
    assert (first.key, second.key) == (more.get("parentID", "a"), "c")
    assert first.frames[0].box.tolist() == [9.5, 9.5, 60.5, 60.5]


def test_a_group_of_two_labels_is_two_objects():
    found = read(click("a", 1, 1, parentID="p"), click("b", 9, 9, parentID="p", label="Dirt"), click("p", 5, 5))
    assert [(o.label, len(o.frames[0].points)) for o in found] == [("Cell", 2), ("Dirt", 1)]
    assert len({o.key for o in found}) == 2


def test_labels_of_a_control_beside():
    point = click("a", 10, 20, label=None) | {"type": "keypoint"}
    label = {"id": "a", "type": "labels", "to_name": "image", "value": {"labels": ["Dirt"], "x": 1}}
    (found,) = read(point, label, {"type": "choices", "to_name": "image", "value": {"choices": ["good"]}})
    assert found.label == "Dirt"


def test_regions_without_ids():
    one, other = deepcopy(click("a", 10, 20)), deepcopy(rectangle("b", 50, 50, 60, 60, label="Dirt"))
    del one["id"], other["id"]
    assert len({o.key for o in read(one, other)}) == 2


def test_a_turned_rectangle_is_the_box_around_its_corners():
    # by 45 degrees about its top left corner (80, 20): 30 px along, 10 px across
    value = {"x": 50, "y": 100 / 6, "width": 30 / 1.6, "height": 10 / 1.2, "rotation": 45}
    half = math.sqrt(0.5)
    expected = [80 - 10 * half - 0.5, 19.5, 80 + 30 * half - 0.5, 20 + 40 * half - 0.5]
    np.testing.assert_allclose(only(read(region("rectangle", "a", **value))).box, expected, atol=1e-3)


def test_an_ellipse_is_the_box_around_it():
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 90}
    np.testing.assert_allclose(only(read(region("ellipse", "a", **value))).box, [67.5, 27.5, 91.5, 91.5], atol=0.1)


def test_a_polygon_is_a_rough_mask():
    points = [[10, 10], [20, 10], [20, 30], [10, 30]]
    frame = only(read(region("polygon", "a", points=points)))
    expected = np.zeros(SIZE, bool)
    expected[12:36, 16:32] = True
    np.testing.assert_array_equal(frame.mask, expected)
    assert frame.box is None


def test_brush_strokes_are_points_on_them():
    frame = only(read(stroke("a", slice(20, 25), slice(10, 100)), stroke("b", 80, slice(10, 12), is_positive=False)))
    assert 3 <= (frame.labels == 1).sum() <= 8
    assert (frame.labels == 0).sum() == 1
    assert set(frame.points[frame.labels == 1][:, 1]) == {22}
    assert frame.points[-1][1] == 80


def test_a_bitmask_is_a_stroke():
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[10:15, 10:15, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    assert only(read(region("bitmask", "a", imageDataURL=url))).points.tolist() == [[12, 12]]


def test_a_negative_area_is_points_beside_the_object():
    frame = only(read(click("a", 10, 10), rectangle("b", 50, 50, 60, 60, is_positive=False)))
    assert frame.labels.tolist() == [1, 0]
    np.testing.assert_allclose(frame.points[1], [55, 55], atol=1)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turning_the_view_changes_nothing(rotation):
    turned = click("a", 10, 20) | {"image_rotation": rotation}
    np.testing.assert_allclose(only(read(turned)).points, [[10, 20]], atol=1e-4)


def test_percentages_are_of_the_image_that_is_there():
    # the request was made for an image of another size
    frame = only(read(click("a", 80, 60, size=(60, 80)), size=(240, 320)))
    np.testing.assert_allclose(frame.points, [[160.5, 120.5]], atol=1e-4)


def test_a_stroke_on_a_smaller_copy_is_enlarged():
    half = np.zeros((60, 80), bool)
    half[10:13, 10:13] = True
    found = read(region("brush", "a", rle=encode_brush(half), size=half.shape))
    np.testing.assert_allclose(only(found).points, [[22, 22]], atol=1.1)
    with pytest.raises(RequestError, match="80 x 60 pixels, but the image has 100 x 60"):
        read(region("brush", "a", rle=encode_brush(half), size=half.shape), size=(60, 100))


def test_edges_of_the_image():
    frame = only(read(region("keypoint", "a", x=100, y=100.5, width=1, is_positive=True)))
    assert frame.points.tolist() == [[159, 119]]
    assert only(read(rectangle("a", 0, 0, 159, 119))).box.tolist() == [0, 0, 159, 119]


def test_prompts_on_several_images_of_a_stack():
    found = read_stack(click("a", 10, 20, item_index=3), click("b", 10, 21), click("c", 9, 9, item_index=3))
    (one,) = found
    assert [(f.frame, len(f.points)) for f in one.frames] == [(0, 1), (3, 2)]


def test_rectangles_on_several_images_are_one_object_where_they_overlap():
    found = read_stack(
        rectangle("a", 10, 10, 30, 30),
        rectangle("b", 100, 60, 130, 90),
        rectangle("c", 105, 62, 130, 90, item_index=2),
        rectangle("d", 12, 10, 30, 30, item_index=2),
        rectangle("e", 60, 10, 70, 20, item_index=2),
    )
    assert [(o.key, [f.frame for f in o.frames]) for o in found] == [("a", [0, 2]), ("b", [0, 2]), ("e", [2])]


def video(id, *sequence, label="Cell"):
    value = {"sequence": list(sequence), "labels": [label]}
    return {"id": id, "type": "videorectangle", "to_name": "video", "value": value}


def keyframe(frame, x, **more):
    return {"frame": frame, "x": x, "y": 10, "width": 10, "height": 10, "rotation": 0, "enabled": True} | more


def read_video(*regions):
    return read_prompts(list(regions), VIDEO, VIDEO.object("video"), (100, 200), 50)


def test_regions_of_a_video_are_objects():
    first, second = read_video(
        video("a", keyframe(1, 10), keyframe(11, 20, enabled=False), keyframe(21, 30)),
        video("b", keyframe(5, 50), label="Dirt"),
    )
    assert (first.key, second.key, second.label) == ("a", "b", "Dirt")
    assert [(f.frame, f.box.tolist()) for f in first.frames] == [
        (0, [19.5, 9.5, 39.5, 19.5]),
        (20, [59.5, 9.5, 79.5, 19.5]),
    ]
    assert first.absent == (range(11, 20),)


def test_what_is_drawn_elsewhere_is_passed_over():
    assert read(click("a", 1, 1, to_name="other")) == []
    assert read() == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (click("a", 170, 20), "outside of the image"),
        (rectangle("a", 10, 10, 10, 170), "outside of the image"),
        (rectangle("a", 10, 10, 9, 20), "no area"),
        (region("rectangle", "a", x=120, y=10, width=5, height=5, rotation=10), "no area within the image"),
        (region("polygon", "a", points=[[1, 1], [2, 2]]), "at least three pairs"),
        (region("polygon", "a", points=[[1, 1], [5, 5], [3, 3]]), "no area"),
        (region("polygon", "a", points=[[1, 1], [200, 5], [3, 30]]), "outside of the image"),
        (region("keypoint", "a", x="1", y=1), "its x has to be a number"),
        (region("keypoint", "a", x=float("nan"), y=1), "its x has to be a number"),
        (region("keypoint", "a", x=10**400, y=1), "its x has to be a number"),
        (region("brush", "a", rle=[1, 2, 3]), "ends too early"),
        (region("brush", "a", rle=[-1] * 10), "0 to 255"),
        (region("bitmask", "a", imageDataURL="http://elsewhere/"), "data URL of a PNG"),
        (region("vector", "a", vertices=[]), "is no prompt: use key points"),
        (click("a", 1, 1, positive="yes"), "is_positive"),
        (click("a", 1, 1, label="Ash"), 'add <Label value="Ash"/> to brush'),
        (click("a", 1, 1, positive=False), "click on the object first"),
        ({"type": "keypointlabels", "to_name": "image"}, "no value"),
        ("a", "damaged"),
    ],
)
def test_bad_prompts(bad, message):
    with pytest.raises(RequestError, match=message):
        read(bad)


@pytest.mark.parametrize("index", [5, -1, "0", 1.5, True])
def test_an_image_that_the_stack_has_not(index):
    with pytest.raises(RequestError, match="has images 0 to 4"):
        read_stack(click("a", 1, 1, item_index=index))


def test_the_label_of_a_button_is_none_of_the_objects():
    [found] = read_video(video("a", keyframe(1, 10), label="Track"))
    assert found.label is None


def test_a_frame_that_the_video_has_not():
    with pytest.raises(RequestError, match="on frame 51, but the video has 50"):
        read_video(video("a", keyframe(51, 10)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
SAMPLES = [
    click("a", 10, 20),
    rectangle("b", 10, 10, 20, 20),
    region("polygon", "c", points=[[1, 1], [9, 1], [5, 5]]),
    region("ellipse", "d", x=50, y=50, radiusX=5, radiusY=5),
    stroke("e", 5, 5),
    region("bitmask", "f", imageDataURL="data:image/png;base64,iVBORw0KGgo="),
    video("g", keyframe(1, 10)) | {"to_name": "image"},
    {"type": "relation", "from_id": "a", "to_id": "b"},
]


@st.composite
def damaged(draw):
    found = deepcopy(draw(st.sampled_from(SAMPLES)))
    holder = draw(st.sampled_from([h for h in (found, found.get("value")) if isinstance(h, dict)]))
    holder[draw(st.sampled_from([*holder, "item_index", "parentID", "rotation"]))] = draw(anything)
    return found


@settings(max_examples=400, deadline=None)
@given(st.lists(damaged() | anything, max_size=3), st.sampled_from(["image", "stack", "video"]))
def test_whatever_comes_is_read_or_refused(regions, kind):
    config = {"image": CONFIG, "stack": STACK, "video": VIDEO}[kind]
    tag = config.objects[0]
    for each in regions:
        if isinstance(each, dict) and kind == "video" and each.get("to_name") == "image":
            each["to_name"] = "video"
    try:
        found = read_prompts(regions, config, tag, SIZE, 5)
    except RequestError:
        return
    for prompt in found:
        for frame in prompt.frames:
            assert 0 <= frame.frame < 5
            assert np.isfinite(frame.points).all()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_damaged_pictures(data):
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()
    with pytest.raises(RequestError, match="bitmask"):
        read(region("bitmask", "a", imageDataURL=url))
