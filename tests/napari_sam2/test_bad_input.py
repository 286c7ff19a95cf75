"""What goes wrong is said in a sentence, on the spot and in napari's notification, and no work is lost by it."""

import errno
import re
import shutil
import threading

import numpy as np
import pytest
import zarr
from napari.utils.notifications import notification_manager

from napari_sam2.readers import get_reader
from sam2_core.volume.journal import Journal
from sam2_core.volume.session import Session
from tests.napari_sam2.conftest import engines, go_on, settle, told
from tests.napari_sam2.test_segment_widget import HERE, click, labels_at, prompts_of

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class OutOfMemoryError(RuntimeError):
    """Called as torch's own is."""


def reading(widget, monkeypatch):
    """Have the predictor look at the images, as a real one does."""
    predictor = widget.predictor
    real_click, real_track = predictor.add_new_points_or_box, predictor._track

    def click(state, frame, *args, **kwargs):
        state.source.frame(frame)
        return real_click(state, frame, *args, **kwargs)

    def track(state, item, frame, step):
        state.source.frame(frame)
        return real_track(state, item, frame, step)

    monkeypatch.setattr(predictor, "add_new_points_or_box", click)
    monkeypatch.setattr(predictor, "_track", track)


def wait_for_planes(qtbot, widget, count):
    """Wait until a propagation has written some planes."""
    seen = []
    widget.segmentation.workspace.planes_changed.connect(seen.append)
    qtbot.waitUntil(lambda: len(seen) > count, timeout=30000)


def deep(planes=30):
    return np.random.default_rng(1).integers(0, 255, (planes, 40, 50), dtype=np.uint8)


# The image goes


def test_the_image_is_removed_during_propagation(qtbot, segment, monkeypatch, said):
    widget = segment(deep())
    may_track = hold_tracking(widget, monkeypatch, 4)
    click(qtbot, widget, 0, 20, 25)
    widget.segmentation.propagate()
    wait_for_planes(qtbot, widget, 3)
    image = widget.viewer.layers["cells"]
    widget.viewer.layers.remove(image)
    assert engines()  # the window did not wait for it
    may_track.set()
    assert widget.segmentation is None
    assert "Go on" in said()[-1]
    widget.viewer.add_layer(image)
    go_on(qtbot, widget)
    workspace = widget.segmentation.workspace
    assert workspace.resumable
    done = sum((workspace.session.read_labels(z) == 1).any() for z in range(30))
    assert 3 <= done < 30
    workspace.resume()
    settle(qtbot, widget)
    assert all((workspace.session.read_labels(z) == 1).any() for z in range(30))


def hold_tracking(widget, monkeypatch, planes):
    """Let a propagation go on after so many planes only when the event that is given back is set."""
    may_track, tracked = threading.Event(), []
    real = widget.predictor._track

    def track(*args):
        tracked.append(args)
        if len(tracked) > planes:
            may_track.wait(30)
        return real(*args)

    monkeypatch.setattr(widget.predictor, "_track", track)
    return may_track


def hold_opening(monkeypatch):
    """Let sessions open only when the event that is given back is set."""
    from napari_sam2 import segment_widget

    may_open = threading.Event()
    real = segment_widget.open_session

    def open_session(*args):
        may_open.wait(30)
        return real(*args)

    monkeypatch.setattr(segment_widget, "open_session", open_session)
    return may_open


def test_the_image_is_removed_while_it_is_opened(qtbot, segment, monkeypatch, said):
    widget = segment(start=False)
    may_open = hold_opening(monkeypatch)
    widget.start_panel.start.click()
    image = widget.viewer.layers["cells"]
    widget.viewer.layers.remove(image)
    may_open.set()
    qtbot.waitUntil(lambda: bool(told(widget, said, "removed while it was opened")), timeout=30000)
    assert widget.segmentation is None
    assert list(widget.viewer.layers) == []
    widget.viewer.add_layer(image)
    widget.start_panel.start.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    click(qtbot, widget, *HERE)
    assert labels_at(widget, *HERE) == 1


def test_the_widget_is_closed_while_the_session_is_opened(qtbot, segment, monkeypatch, tmp_path):
    widget = segment(start=False)
    may_open = hold_opening(monkeypatch)
    widget.start_panel.start.click()
    threading.Timer(0.2, may_open.set).start()
    widget.close()
    assert not engines()
    (directory,) = (tmp_path / "sessions").iterdir()
    with Session.open(directory, image=widget.viewer.layers["cells"].data):  # it is not in use
        pass


def stored(tmp_path, planes=8):
    """An image as zarr, a chunk a plane, opened by our reader: the path, and what makes a layer of it."""
    path = tmp_path / "cells.zarr"
    array = zarr.create_array(str(path), shape=(planes, 40, 50), chunks=(1, 40, 50), dtype="u1")
    array[:] = deep(planes)
    data, options, _ = get_reader(str(path))(str(path))[0]
    return path, data, {**options, "name": "cells"}


def test_the_file_is_gone_after_it_was_opened(qtbot, segment, said, tmp_path, monkeypatch):
    path, data, options = stored(tmp_path)
    widget = segment(data, **options)
    reading(widget, monkeypatch)
    click(qtbot, widget, *HERE)
    path.rename(tmp_path / "elsewhere.zarr")
    click(qtbot, widget, 5, 20, 25)
    assert told(widget, said, r"cells\.zarr is gone: put it back")
    assert len(prompts_of(widget)[1]) == 1
    assert len(widget.segmentation.prompts.points.data) == 1
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert told(widget, said, r"cells\.zarr is gone: put it back")
    widget.close_segmentation()
    widget.start_panel.refresh()
    assert "cells.zarr" in widget.start_panel.note.text()
    (tmp_path / "elsewhere.zarr").rename(path)
    widget.start_panel.refresh()
    go_on(qtbot, widget)
    assert labels_at(widget, *HERE) == 1
    click(qtbot, widget, 5, 20, 25)
    assert labels_at(widget, 5, 20, 25) > 0


def test_the_file_goes_between_the_look_and_go_on(qtbot, segment, said, tmp_path):
    path, data, options = stored(tmp_path)
    widget = segment(data, **options)
    click(qtbot, widget, *HERE)
    widget.close_segmentation()
    shutil.move(path, tmp_path / "elsewhere.zarr")
    widget.start_panel.go_on.click()
    assert told(widget, said, r"cells\.zarr does not exist")
    assert widget.segmentation is None
    assert widget.start_panel.isEnabled()


def test_a_part_of_the_file_is_damaged(qtbot, segment, said, tmp_path, monkeypatch):
    path, data, options = stored(tmp_path)
    for chunk in (path / "c" / "5").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no longer a chunk")
    widget = segment(data, **options)
    reading(widget, monkeypatch)
    click(qtbot, widget, 5, 20, 25)
    assert told(widget, said, "could not be read .*: check that the file is whole")
    assert prompts_of(widget) == {}
    click(qtbot, widget, *HERE)
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert told(widget, said, "could not be read .*: check that the file is whole")
    assert widget.segmentation.workspace.resumable  # up to there it is done
    assert labels_at(widget, *HERE) > 0


# Images that hold little


@pytest.mark.parametrize("shape", [(1, 1), (3, 1, 1)])
def test_one_pixel(qtbot, segment, said, shape):
    widget = segment(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), contrast_limits=(0, 5))
    click(qtbot, widget, *(0 for _ in shape))
    assert labels_at(widget, *(0 for _ in shape)) == 1
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert not [text for text in said() if re.match(r"\w*(Error|Exception)\b", text)]


@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0])
def test_one_value(qtbot, segment, said, value):
    data = np.full((4, 24, 30), value, np.float32)
    widget = segment(data, start=False)
    widget.viewer.layers["cells"].contrast_limits = (0, 1)
    widget.start_panel.start.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    click(qtbot, widget, 1, 10, 10)
    assert labels_at(widget, 1, 10, 10) == 1
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert not said()


@pytest.mark.parametrize(("value", "why"), [(np.nan, "no finite value"), (7.0, "is constant")])
def test_a_window_that_cannot_be_estimated(qtbot, segment, said, value, why):
    widget = segment(np.full((4, 24, 30), value, np.float32), start=False)
    widget.start_panel.intensities.setCurrentIndex(1)
    widget.start_panel.start.click()
    qtbot.waitUntil(lambda: widget.start_panel.isEnabled(), timeout=30000)
    assert told(widget, said, why)
    assert widget.segmentation is None


def test_images_of_different_shape_each_have_their_session(qtbot, segment):
    widget = segment(start=False)
    other = widget.viewer.add_image(np.random.default_rng(2).random((2, 3, 30, 20)), name="other")
    panel = widget.start_panel
    places = {"cells": HERE, "other": (1, 2, 10, 10)}
    for name in (*places, *places):
        known = panel.layers.findText(name)
        panel.layers.setCurrentIndex(known)
        (panel.go_on if panel.go_on.isVisibleTo(panel) else panel.start).click()
        qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
        settle(qtbot, widget)
        assert widget.segmentation.image.name == name
        click(qtbot, widget, *places[name])
        assert labels_at(widget, *places[name]) == len(prompts_of(widget))
        widget.close_segmentation()
    assert panel.go_on.isVisibleTo(panel)
    go_on(qtbot, widget)
    assert widget.segmentation.image is other
    assert len(prompts_of(widget)) == 2


# The disk is full


def test_an_act_for_which_there_is_no_room_is_refused_and_the_next_one_works(qtbot, segment, monkeypatch, said):
    widget = segment()
    click(qtbot, widget, *HERE)
    before = widget.segmentation.workspace.session.labels.volume.read()

    def full(self, record):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        click(qtbot, widget, 3, 8, 8)
        assert told(widget, said, "the disk is full")
        widget.segmentation.labels.layer.paint((3, 30, 40), 1)
        settle(qtbot, widget)
        widget.segmentation.workspace.undo()
        widget.segmentation.propagate()
        settle(qtbot, widget)
    assert told(widget, said, "the disk is full")
    np.testing.assert_array_equal(np.asarray(widget.segmentation.labels.view), before)
    assert len(widget.segmentation.prompts.points.data) == 1
    click(qtbot, widget, 3, 8, 8)
    assert labels_at(widget, 3, 8, 8) == 1
    widget.segmentation.workspace.undo()
    settle(qtbot, widget)
    np.testing.assert_array_equal(np.asarray(widget.segmentation.labels.view), before)


def test_labels_for_which_there_is_no_room_are_shown_when_there_is(qtbot, segment, monkeypatch, said):
    widget = segment()
    click(qtbot, widget, *HERE)

    def full(self, where, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        click(qtbot, widget, 3, 8, 8)
        assert told(widget, said, "the disk is full.*is kept")
    widget.segmentation.toggle_lock()
    settle(qtbot, widget)
    assert labels_at(widget, 3, 8, 8) == 1
    assert widget.segmentation.labels.layer._slice.image.raw[8, 8] in (0, 1)
    np.testing.assert_array_equal(
        np.asarray(widget.segmentation.labels.view), widget.segmentation.workspace.session.labels.volume.read()
    )


# The model


@pytest.fixture
def real_models(monkeypatch):
    """Sessions load the model that they were given."""
    from napari_sam2 import segment_widget

    fake = segment_widget.open_session

    def open_session(choice, cache):
        session, cache = fake(choice, cache)
        session._predictor = None
        return session, cache

    monkeypatch.setattr(segment_widget, "open_session", open_session)


@pytest.mark.parametrize("kind", ["text", "missing", "unknown"])
def test_a_model_that_is_none(qtbot, segment, real_models, said, tmp_path, kind):
    path = tmp_path / "model.pt"
    if kind == "text":
        path.write_text("no model")
    name = "no-such-model" if kind == "unknown" else str(path)
    widget = segment(start=False)
    widget.start_panel.model.addItem(name)
    widget.start_panel.model.setCurrentText(name)
    widget.start_panel.start.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    settle(qtbot, widget)
    assert told(widget, said, r"model\.pt|no-such-model")
    assert len(said()) == 1  # not once more for each neighbour that would have been embedded ahead
    click(qtbot, widget, *HERE)
    assert told(widget, said, r"model\.pt|no-such-model")
    assert prompts_of(widget) == {}
    session = widget.segmentation.workspace.session
    widget.segmentation.workspace.set_model("cells-nano")
    settle(qtbot, widget)
    session._predictor = widget.predictor
    click(qtbot, widget, *HERE)
    assert labels_at(widget, *HERE) > 0


# The GPU


def out_of_memory(widget, monkeypatch, method, times):
    """Have a method of the predictor run out of memory so often, if it computes on the GPU; it is back after that."""
    predictor = widget.predictor
    real, left = getattr(predictor, method), [times]

    def fails(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(*args, **kwargs)

    monkeypatch.setattr(predictor, method, fails)


def reload_on(widget, monkeypatch):
    """Where the model is loaded anew; gives the devices, in order."""
    session = widget.segmentation.workspace.session
    devices = []
    real = session.set_device

    def set_device(device):
        real(device)
        devices.append(device)
        session._predictor = widget.predictor

    monkeypatch.setattr(session, "set_device", set_device)
    return devices


@pytest.mark.parametrize("way", ["button", "notification"])
def test_a_click_for_which_the_gpu_has_no_memory_is_done_on_the_cpu(qtbot, segment, monkeypatch, said, way):
    widget = segment()
    devices = reload_on(widget, monkeypatch)
    out_of_memory(widget, monkeypatch, "add_new_points_or_box", 2)
    assert widget.on_cpu.isHidden()
    click(qtbot, widget, *HERE)
    widget.segmentation.new_object()
    click(qtbot, widget, 3, 6, 6)
    assert told(widget, said, "GPU has no memory left")
    assert prompts_of(widget) == {}
    assert not widget.on_cpu.isHidden()
    if way == "button":
        widget.on_cpu.click()
    else:
        (_, act), = notification_manager.records[-1].actions  # fmt: skip
        act(None)
    settle(qtbot, widget)
    assert devices == ["cpu"]
    assert widget.on_cpu.isHidden()
    assert labels_at(widget, *HERE) > 0
    assert labels_at(widget, 3, 6, 6) > 0
    assert len(prompts_of(widget)) == 2


def test_a_propagation_for_which_the_gpu_has_no_memory_goes_on_on_the_cpu(qtbot, segment, monkeypatch, said):
    widget = segment()
    devices = reload_on(widget, monkeypatch)
    click(qtbot, widget, 0, 20, 25)
    real, calls = widget.predictor._track, []

    def track(*args):
        calls.append(args)
        if len(calls) == 4:
            raise OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(widget.predictor, "_track", track)
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert told(widget, said, "GPU has no memory left")
    assert widget.segmentation.workspace.resumable
    widget.on_cpu.click()
    qtbot.waitUntil(lambda: widget.segmentation.workspace.running)
    settle(qtbot, widget)
    assert devices == ["cpu"]
    assert all((widget.segmentation.workspace.session.read_labels(z) == 1).any() for z in range(8))


def test_embedding_for_which_the_gpu_has_no_memory(qtbot, segment, monkeypatch, said):
    widget = segment()
    devices = reload_on(widget, monkeypatch)
    out_of_memory(widget, monkeypatch, "embed", 1)
    widget.viewer.dims.set_point(0, 6)
    settle(qtbot, widget)
    assert told(widget, said, "GPU has no memory left")
    widget.predictor.embedded.clear()
    widget.on_cpu.click()
    settle(qtbot, widget)
    assert devices == ["cpu"]
    assert 6 in widget.predictor.embedded


def test_the_cpu_is_offered_no_more_once_the_segmentation_is_closed(qtbot, segment, monkeypatch):
    widget = segment()
    out_of_memory(widget, monkeypatch, "add_new_points_or_box", 1)
    click(qtbot, widget, *HERE)
    ((_, act),) = notification_manager.records[-1].actions
    widget.close_segmentation()
    assert widget.on_cpu.isHidden()
    act(None)
    assert widget.segmentation is None
