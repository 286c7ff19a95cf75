"""Several windows, layers that are changed, and napari closed in the middle: a session belongs to one, and is kept."""

import time

import numpy as np
import pytest

from napari_sam2.segment_widget import SegmentWidget
from sam2_core.volume.session import Session
from tests.napari_sam2.conftest import engines, go_on, settle, told
from tests.napari_sam2.test_bad_input import deep, stored, wait_for_planes
from tests.napari_sam2.test_segment_widget import HERE, click, labels_at, prompts_of

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def slowly(widget, monkeypatch, seconds=0.05):
    """Have the tracker take its time on each plane."""
    real = widget.predictor._track

    def track(*args):
        time.sleep(seconds)
        return real(*args)

    monkeypatch.setattr(widget.predictor, "_track", track)


def test_a_session_that_is_open_in_another_window_is_refused(qtbot, segment, make_napari_viewer, said):
    data = deep(4)
    one = segment(data)
    click(qtbot, one, 1, 20, 25)
    other = segment(data, start=False)
    other.start_panel.go_on.click()
    qtbot.waitUntil(lambda: bool(told(other, said, "is in use: close the session that has it open")), timeout=30000)
    assert other.segmentation is None
    click(qtbot, one, 1, 8, 8)
    assert labels_at(one, 1, 8, 8) == 1
    one.close_segmentation()
    go_on(qtbot, other)
    assert labels_at(other, 1, 8, 8) == 1


def test_a_renamed_layer_stays_the_same_image(qtbot, segment, tmp_path):
    _, data, options = stored(tmp_path)
    widget = segment(data, **options)
    click(qtbot, widget, *HERE)
    widget.viewer.layers["cells"].name = "nuclei"
    widget.segmentation.labels.layer.name = "mine"
    widget.segmentation.prompts.points.name = "dots"
    assert widget.start_panel.layers.currentText() == "nuclei"
    click(qtbot, widget, 3, 8, 8)
    assert labels_at(widget, 3, 8, 8) == 1
    widget.close_segmentation()
    assert [layer.name for layer in widget.viewer.layers] == ["nuclei"]
    go_on(qtbot, widget)
    assert len(prompts_of(widget)[1]) == 2


def test_duplicated_layers_are_copies(qtbot, segment):
    widget = segment()
    click(qtbot, widget, *HERE)
    viewer = widget.viewer
    from napari.layers._layer_actions import _duplicate_layer

    for layer in list(viewer.layers):
        viewer.layers.selection = {layer}
        _duplicate_layer(viewer.layers)
    click(qtbot, widget, 3, 8, 8)
    assert labels_at(widget, 3, 8, 8) == 1
    assert len(prompts_of(widget)[1]) == 2
    assert len(viewer.layers["cells: points copy"].data) == 1
    viewer.layers["cells: points copy"].add((3, 30, 30))
    settle(qtbot, widget)
    assert len(prompts_of(widget)[1]) == 2
    viewer.layers.remove("cells: objects copy")
    assert widget.segmentation is not None
    widget.close_segmentation()
    assert {layer.name for layer in viewer.layers} == {
        "cells", "cells copy", "cells: points copy", "cells: shapes copy",
    }  # fmt: skip


def test_labels_are_hidden_shown_and_saved_by_napari(qtbot, segment, tmp_path):
    import tifffile

    widget = segment()
    click(qtbot, widget, *HERE)
    layer = widget.segmentation.labels.layer
    layer.visible = False
    click(qtbot, widget, 3, 8, 8)
    layer.visible = True
    assert layer._slice.image.raw[8, 8] == 1
    layer.save(str(tmp_path / "labels.tif"))
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "labels.tif"), widget.segmentation.workspace.session.labels.volume.read()
    )


# napari is closed


def close_viewer(widget):
    widget.viewer.close()


def close_window(widget):
    window = widget.viewer.window
    window._qt_window.close()
    del window._qt_window  # as it is when napari closed it


def close_dock(widget):
    widget.viewer.window.remove_dock_widget(widget)


@pytest.mark.parametrize("close", [close_viewer, close_window, close_dock])
def test_closing_during_propagation_leaves_a_session_to_go_on_with(qtbot, segment, monkeypatch, tmp_path, close):
    data = deep()
    widget = segment(data)
    slowly(widget, monkeypatch)
    click(qtbot, widget, 0, 20, 25)
    directory = widget.segmentation.workspace.session.directory
    widget.segmentation.propagate()
    wait_for_planes(qtbot, widget, 3)
    close(widget)
    qtbot.waitUntil(lambda: not engines(), timeout=10000)
    with Session.open(directory, image=data, predictor=widget.predictor) as session:
        done = sum((session.read_labels(z) == 1).any() for z in range(30))
        assert 3 <= done < 30
        assert len(list(session.resume())) == 30 - done


def test_a_widget_that_is_opened_anew_goes_on_with_what_the_last_one_had(qtbot, segment):
    widget = segment()
    click(qtbot, widget, *HERE)
    viewer = widget.viewer
    close_dock(widget)
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again, name="Segment again")
    go_on(qtbot, again)
    assert labels_at(again, *HERE) == 1
    again.close()
