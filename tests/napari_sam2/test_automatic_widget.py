"""Everything is found, on a plane, in a part of it or through planes, while the window goes on to work."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils import progress as napari_progress
from scipy import ndimage

from napari_sam2 import runs
from napari_sam2.automatic_widget import PLANE, RANGE, REGION, AutomaticWidget
from tests.napari_sam2.conftest import settle


def picture(shape, *boxes):
    image = np.zeros(shape, np.uint8)
    for box in boxes:
        image[box] = 255
    return image


STACK = picture((6, 30, 40), np.s_[1:5, 2:9, 3:12], np.s_[2:6, 15:25, 20:36], np.s_[:, 27:29, 2:4])


class Finder:
    """Stands in for `label_finder`: connected bright pixels, ten clicks each; holds at a click if it is told to."""

    def __init__(self) -> None:
        self.settings: dict = {}
        self.sizes: list = []
        self.hold_at = -1
        self.held, self.go_on = threading.Event(), threading.Event()

    def __call__(self, predictor, progress, points_per_batch, **settings):
        self.settings = settings

        def find(image):
            self.sizes.append(image.shape)
            for click in range(1, 11):
                if len(self.sizes) * 10 + click == self.hold_at:
                    self.held.set()
                    assert self.go_on.wait(30)
                    self.go_on.clear()
                progress(click, 10)
            return ndimage.label(np.asarray(image, float) > 0.5)[0].astype(np.uint32)

        return find


@pytest.fixture
def finder(monkeypatch):
    found = Finder()
    monkeypatch.setattr(runs, "label_finder", found)
    yield found
    found.hold_at = -1
    found.go_on.set()


@pytest.fixture
def begin(qtbot, segment, finder):
    """Begins a segmentation, and gives it with the widget for automatic masks beside it."""
    widgets = []

    def begin(data=STACK, **kwargs):
        segment_widget = segment(data, contrast_limits=(0, 255), **kwargs)
        segment_widget.predictor.model = SimpleNamespace(image_size=1024)
        widget = AutomaticWidget(segment_widget.viewer)
        segment_widget.viewer.window.add_dock_widget(widget, name="Automatic masks")
        widgets.append(widget)
        return segment_widget, widget

    yield begin
    for widget in widgets:
        widget.close()


def run(qtbot, segment, widget, where=PLANE):
    widget.where.setCurrentIndex(where)
    widget.start.click()
    settle(qtbot, segment)


def labels_of(segment):
    return segment.segmentation.workspace.session.labels.volume.read()


def test_a_plane(qtbot, begin):
    segment, widget = begin()
    segment.viewer.dims.set_point(0, 3)
    run(qtbot, segment, widget)
    labels = labels_of(segment)
    assert (np.unique(labels[3]).tolist(), labels[[0, 1, 2, 4, 5]].any()) == ([0, 1, 2, 3], False)
    assert "3 objects found" in widget.status.text()
    assert segment._work.table.model().rowCount() == 3
    np.testing.assert_array_equal(segment.segmentation.labels.layer._slice.image.raw, labels[3])


def test_the_visible_region(qtbot, begin):
    segment, widget = begin()
    segment.viewer.dims.set_point(0, 3)
    layer = segment.segmentation.labels.layer
    layer.corner_pixels = np.array([[0, 10, 5], [0, 29, 39]])  # as napari sets it when it draws
    run(qtbot, segment, widget, REGION)
    labels = labels_of(segment)[3]
    assert np.unique(labels).tolist() == [0, 1]
    assert (labels[20, 25], labels[4, 5]) == (1, 0)


def test_planes_are_linked_unless_it_is_unwanted(qtbot, begin):
    segment, widget = begin()
    run(qtbot, segment, widget, RANGE)
    labels = labels_of(segment)
    assert "3 objects found" in widget.status.text()
    assert len(np.unique(labels[1:5, 4, 5])) == len(np.unique(labels[:, 28, 3])) == 1
    widget.link.setChecked(False)
    first, last = widget._bounds["z"]
    for item in list(segment.segmentation.workspace.state.objects):
        segment.segmentation.workspace.delete_objects([item])
    first.setValue(2)
    last.setValue(4)
    run(qtbot, segment, widget, RANGE)
    labels = labels_of(segment)
    assert "9 objects found" in widget.status.text()
    assert [z for z in range(6) if labels[z].any()] == [2, 3, 4]


def test_through_depth_and_time(qtbot, begin):
    movie = picture((3, 4, 30, 40), np.s_[:, 1:3, 5:12, 5:15])
    segment, widget = begin(movie, axis_labels=("t", "z", "y", "x"))
    assert list(widget._bounds) == ["t", "z"]
    widget._bounds["t"][0].setValue(1)
    run(qtbot, segment, widget, RANGE)
    labels = labels_of(segment)
    np.testing.assert_array_equal(labels[1:] == 1, movie[1:] > 0)
    assert not labels[0].any()


def test_what_is_found_is_undone_act_by_act(qtbot, begin):
    segment, widget = begin()
    run(qtbot, segment, widget, RANGE)
    workspace = segment.segmentation.workspace
    while workspace.session.history.done:
        workspace.undo()
        settle(qtbot, segment)
    assert not labels_of(segment).any()
    assert not workspace.state.objects
    assert not np.asarray(segment.segmentation.labels.view).any()


def test_each_plane_shows_when_it_is_done(qtbot, begin, finder):
    segment, widget = begin()
    finder.hold_at = 2 * 10 + 5  # in the second plane
    seen = []
    segment.segmentation.workspace.progressed.connect(lambda now: seen.append(now))
    widget.where.setCurrentIndex(RANGE)
    widget.start.click()
    qtbot.waitUntil(lambda: bool(seen) and seen[-1].done >= 1.4, timeout=30000)
    assert np.asarray(segment.segmentation.labels.view)[0, 28, 3] == 1
    assert segment._work.table.model().rowCount() == 1
    assert seen[-1].task == "find objects"
    assert widget.progress.value() > 0
    assert widget.progress.text().endswith("to go")
    assert segment._work.run_panel.progress.text() == ""
    qtbot.waitUntil(lambda: [p.desc for p in napari_progress._all_instances] == ["SAM 2: find objects"])
    assert not widget.start.isEnabled()
    finder.go_on.set()
    settle(qtbot, segment)
    assert not napari_progress._all_instances
    assert widget.start.isEnabled()


def test_clicks_come_in_within_a_plane(qtbot, begin, finder):
    segment, widget = begin()
    segment.viewer.dims.set_point(0, 5)
    finder.hold_at = 10 + 5
    widget.where.setCurrentIndex(PLANE)
    widget.start.click()
    qtbot.waitUntil(finder.held.is_set, timeout=30000)
    workspace = segment.segmentation.workspace
    segment.segmentation.prompts.points.add(np.array((5.0, 5.0, 30.0)))
    finder.hold_at = 10 + 8  # three clicks of the search later
    finder.go_on.set()
    qtbot.waitUntil(lambda: not workspace.waiting, timeout=30000)
    assert workspace.running
    assert list(workspace.state.objects) == [1]
    finder.go_on.set()
    settle(qtbot, segment)
    assert len(workspace.state.objects) == 3
    assert "2 objects found" in widget.status.text()
    assert labels_of(segment)[5, 5, 30] == 1


def test_no_id_is_given_twice(qtbot, begin, finder):
    segment, widget = begin()
    segment.viewer.dims.set_point(0, 5)
    finder.hold_at = 10 + 5
    widget.start.click()
    qtbot.waitUntil(finder.held.is_set, timeout=30000)
    assert segment.segmentation.workspace.next_id() == 1  # for a prompt that is on its way
    finder.go_on.set()
    settle(qtbot, segment)
    assert list(segment.segmentation.workspace.state.objects) == [2, 3]


def test_stop_within_a_plane_keeps_what_is_done(qtbot, begin, finder):
    segment, widget = begin()
    finder.hold_at = 4 * 10 + 5
    widget.where.setCurrentIndex(RANGE)
    widget.start.click()
    qtbot.waitUntil(finder.held.is_set, timeout=30000)
    widget.stop.click()
    finder.go_on.set()
    settle(qtbot, segment)
    labels = labels_of(segment)
    assert [z for z in range(6) if labels[z].any()] == [0, 1, 2]
    assert "stopped: 3 objects found" in widget.status.text()
    assert not segment.segmentation.workspace.resumable
    run(qtbot, segment, widget, PLANE)  # another one can begin
    assert "0 objects found" in widget.status.text()


def test_undo_ends_a_search(qtbot, begin, finder):
    segment, widget = begin()
    finder.hold_at = 3 * 10 + 5
    widget.where.setCurrentIndex(RANGE)
    widget.start.click()
    qtbot.waitUntil(finder.held.is_set, timeout=30000)
    segment.segmentation.workspace.undo()
    finder.go_on.set()
    settle(qtbot, segment)
    labels = labels_of(segment)
    assert labels[0].any()
    assert not labels[2:].any()


def test_closing_ends_a_search(qtbot, begin, finder):
    segment, widget = begin()
    finder.hold_at = 2 * 10 + 5
    widget.where.setCurrentIndex(RANGE)
    widget.start.click()
    qtbot.waitUntil(finder.held.is_set, timeout=30000)
    threading.Timer(0.2, finder.go_on.set).start()
    segment.close_segmentation()
    assert widget.segmentation is None
    assert not widget.start.isEnabled()
    assert not napari_progress._all_instances


def test_settings_reach_the_search(qtbot, begin, finder):
    segment, widget = begin()
    segment.viewer.dims.set_point(0, 3)
    run(qtbot, segment, widget)
    assert finder.settings == {"points_per_side": 32, "box_nms_thresh": 0.7}  # the rest is the model's
    segment.segmentation.workspace.undo()
    settle(qtbot, segment)
    widget.points.setValue(16)
    widget.quality.setValue(0.6)
    widget.stability.setValue(0)
    widget.least.setValue(10)
    widget.most.setValue(100)
    run(qtbot, segment, widget)
    assert finder.settings == {
        "points_per_side": 16,
        "box_nms_thresh": 0.7,
        "pred_iou_thresh": 0.6,
        "stability_score_thresh": 0.0,
    }
    areas = np.bincount(labels_of(segment)[3].ravel())[1:]
    assert areas[areas > 0].tolist() == [63]


@pytest.mark.parametrize(
    ("side", "tiles", "count"),
    [
        (20, "if the plane is large", 1),
        (19, "if the plane is large", 6),
        (20, "always", 6),
        (10, "never", 1),
    ],
)
def test_large_planes_are_searched_by_tiles(qtbot, begin, finder, side, tiles, count):
    segment, widget = begin()
    segment.predictor.model.image_size = side
    segment.viewer.dims.set_point(0, 3)
    widget.tiles.setCurrentText(tiles)
    run(qtbot, segment, widget)
    assert len(finder.sizes) == count
    assert max(max(size) for size in finder.sizes) == (40 if count == 1 else side)
    assert "3 objects found" in widget.status.text()


def test_errors_are_told(qtbot, begin, monkeypatch):
    segment, widget = begin()
    segment.viewer.dims.order = (1, 0, 2)
    run(qtbot, segment, widget, REGION)
    assert "turn the view back" in widget.status.text()
    assert "turn the view back" in segment.status.text()
    segment.viewer.dims.order = (0, 1, 2)

    def fail(*args, **settings):
        raise RuntimeError("the model is broken")

    monkeypatch.setattr(runs, "label_finder", fail)
    run(qtbot, segment, widget, PLANE)
    assert "the model is broken" in widget.status.text()
    assert widget.start.isEnabled()
    assert not labels_of(segment).any()


def test_it_follows_the_segment_widget(qtbot, make_napari_viewer, segment):
    viewer = make_napari_viewer()
    widget = AutomaticWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Automatic masks")
    assert "open Segment" in widget.title.text()
    assert widget.open_segment.isVisibleTo(widget)
    assert not widget.start.isEnabled()
    segment_widget = segment(np.zeros((30, 40), np.uint8) + np.arange(40, dtype=np.uint8), viewer=viewer, start=False)
    widget.look()
    assert "start one in Segment" in widget.title.text()
    segment_widget.start_panel.start.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    settle(qtbot, segment_widget)
    assert "cells" in widget.title.text()
    assert widget.start.isEnabled()
    assert not widget.open_segment.isVisibleTo(widget)
    assert not widget.where.model().item(RANGE).isEnabled()  # there is one plane
    viewer.layers.remove("cells")
    assert widget.segmentation is None
    widget.close()


def test_the_button_opens_segment(make_napari_viewer):
    viewer = make_napari_viewer()
    widget = AutomaticWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Automatic masks")
    widget.open_segment.click()
    (opened,) = [w for name, w in viewer.window.dock_widgets.items() if "Segment" in name]
    assert "start one in Segment" in widget.title.text()
    opened.close()
    widget.close()
