"""What the layers of prompts draw anew, and what they leave."""

import numpy as np

from tests.napari_sam2.conftest import settle


def test_a_click_is_not_drawn_a_second_time(segment, qtbot):
    widget = segment()
    prompts = widget.segmentation.prompts
    drawn = []
    for layer in (prompts.points, prompts.shapes):
        layer.events.set_data.connect(lambda event: drawn.append(event.source))
    prompts.points.add([3, 20, 25])
    before = len(drawn)
    settle(qtbot, widget)
    assert len(drawn) == before
    (placed,) = widget.segmentation.workspace.state[1].prompts
    assert list(prompts.points.features["serial"]) == [placed.serial]
    assert list(prompts.points.features["object"]) == [1]


def test_a_click_off_the_object_gets_its_colour(segment, qtbot):
    widget = segment()
    prompts = widget.segmentation.prompts
    prompts.points.add([3, 20, 25])
    settle(qtbot, widget)
    prompts._alternate = True
    prompts.points.add([3, 20, 35])
    settle(qtbot, widget)
    on, off = prompts.points.face_color
    assert on[1] > on[0]
    assert off[0] > off[1]
    assert list(prompts.points.features["label"]) == [1, 0]


def test_what_was_undone_goes_from_the_canvas(segment, qtbot):
    widget = segment()
    prompts, workspace = widget.segmentation.prompts, widget.segmentation.workspace
    for x in (25, 35):
        prompts.points.add([3, 20, x])
        settle(qtbot, widget)
    workspace.undo()
    settle(qtbot, widget)
    np.testing.assert_array_equal(prompts.points.data, [[3, 20, 25]])


def test_shapes_are_there_when_there_are_any_or_are_to_be(segment, qtbot):
    widget = segment()
    segmentation, shapes = widget.segmentation, widget.segmentation.prompts.shapes
    assert not shapes.visible
    segmentation.use("box")
    assert shapes.visible
    segmentation.use("points")
    assert not shapes.visible
    segmentation.use("box")
    shapes.add([[3, 10, 10], [3, 10, 30], [3, 30, 30], [3, 30, 10]], shape_type="rectangle")
    settle(qtbot, widget)
    segmentation.use("points")
    assert shapes.visible
    shapes.visible = False  # the user may hide them, and they stay hidden
    segmentation.prompts.points.add([3, 20, 35])
    settle(qtbot, widget)
    assert not shapes.visible
    shapes.visible = True
    segmentation.workspace.undo()
    segmentation.workspace.undo()
    settle(qtbot, widget)
    assert not shapes.visible
