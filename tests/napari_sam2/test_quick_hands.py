"""What is done before the last act's answer is on the canvas gets not lost, and is not done to the wrong thing."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from tests.napari_sam2.conftest import settle
from tests.napari_sam2.test_segment_widget import HERE, click, labels_at, prompts_of


@pytest.fixture
def at_plane(segment):
    widget = segment()
    widget.viewer.dims.set_point(0, HERE[0])
    return widget


@contextmanager
def busy(qtbot, widget):
    """While the thread that computes does something else; then all that was asked for is done."""
    go_on = threading.Event()
    widget.segmentation.workspace.engine.submit(lambda: go_on.wait(30))
    try:
        yield
    finally:
        go_on.set()
    settle(qtbot, widget)


def move(widget, index, y, x):
    points = widget.segmentation.prompts.points
    data = points.data.copy()
    data[index, -2:] = y, x
    points.data = data


def test_a_point_that_is_moved_again_ends_where_it_was_moved_last(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    with busy(qtbot, widget):
        move(widget, 0, 12, 12)
        move(widget, 0, 8, 9)
    assert [p.points for p in prompts_of(widget)[1]] == [((9.0, 8.0),)]
    assert labels_at(widget, 3, 8, 9) == 1
    assert labels_at(widget, *HERE) == 0
    widget.segmentation.workspace.undo()
    widget.segmentation.workspace.undo()
    settle(qtbot, widget)
    move(widget, 0, 30, 30)
    settle(qtbot, widget)
    assert [p.points for p in prompts_of(widget)[1]] == [((30.0, 30.0),)]


def test_an_answer_that_is_not_drawn_yet_does_not_take_the_point_away(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    workspace = widget.segmentation.workspace
    move(widget, 0, 8, 9)
    done = threading.Event()
    workspace.engine.submit(done.set)
    assert done.wait(30)  # in the session it is moved, on the canvas it has its old number
    points = widget.segmentation.prompts.points
    points.events.data(value=points.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle(qtbot, widget)
    assert [p.points for p in prompts_of(widget)[1]] == [((9.0, 8.0),)]


def test_a_click_that_waits_stays_when_another_point_is_moved_or_deleted(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    with busy(qtbot, widget):
        widget.segmentation.prompts.points.add(np.array((3, 20, 30), float))
        move(widget, 0, 20, 22)
    assert sorted(p.points for p in prompts_of(widget)[1]) == [((22.0, 20.0),), ((30.0, 20.0),)]
    points = widget.segmentation.prompts.points
    with busy(qtbot, widget):
        points.add(np.array((3, 20, 38), float))
        points.selected_data = {0}
        points.remove_selected()
    assert len(prompts_of(widget)[1]) == 2
    assert ((38.0, 20.0),) in [p.points for p in prompts_of(widget)[1]]


def test_painting_leaves_what_came_meanwhile(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    layer = widget.segmentation.labels.layer
    layer.brush_size = 1
    with busy(qtbot, widget):
        widget.segmentation.prompts.points.add(np.array((3, 20, 40), float))
        layer.paint((3, 30, 10), 1)
    assert labels_at(widget, 3, 20, 40) == 1
    assert labels_at(widget, 3, 30, 10) == 1
    widget.segmentation.workspace.undo()
    settle(qtbot, widget)
    assert labels_at(widget, 3, 20, 40) == 1
    assert labels_at(widget, 3, 30, 10) == 0


def test_the_next_prompt_is_for_no_object_that_is_gone(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    assert widget.segmentation.active == 1
    widget.segmentation.workspace.undo()
    settle(qtbot, widget)
    assert widget.segmentation.active == 0
    assert "a new object" in widget._work.active.text()
    widget.segmentation.workspace.redo()
    settle(qtbot, widget)
    widget.segmentation.new_object()
    click(qtbot, widget, 3, 6, 6)
    widget._work.table.selectAll()
    widget._work._merge()
    settle(qtbot, widget)
    assert widget.segmentation.active in {0, *widget.segmentation.workspace.state.objects}


def test_a_flat_box_is_refused_in_words(qtbot, at_plane):
    widget = at_plane
    shapes = widget.segmentation.prompts.shapes
    shapes.add(np.array([[3, 10, 10], [3, 10, 30], [3, 10, 30], [3, 10, 10]], float), shape_type="rectangle")
    settle(qtbot, widget)
    assert "x0 < x1" in widget.status.text()
    assert len(shapes.data) == 0
    assert prompts_of(widget) == {}
    shapes.add(np.array([[3, 10, 30], [3, 10, 45], [3, 20, 45], [3, 20, 30]], float), shape_type="rectangle")
    settle(qtbot, widget)
    shapes._data_view.shift(0, [0, 40])  # out of the image
    shapes.events.data(value=shapes.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle(qtbot, widget)
    assert "x0 < x1" in widget.status.text()
    ((prompt,),) = prompts_of(widget).values()
    assert prompt.box == (30, 10, 45, 20)
    assert shapes.data[0][:, 2].max() == 45
