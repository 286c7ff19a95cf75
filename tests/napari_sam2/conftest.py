"""A window with the Segment widget, and a predictor without a network behind it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import threading
import time

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from tests.sam2_core.volume.conftest import FakePredictor as VolumePredictor

# Qt's bindings give back references to None that they do not own, thousands with each viewer, and before Python 3.12
# that ends the process when none are left: here are more, which are never given back.
ctypes.pythonapi.Py_IncRef(ctypes.py_object([None] * 5_000_000))


class FakePredictor(VolumePredictor):
    """Discs around clicks; remembers which planes it was asked to embed."""

    embedding_key = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[int] = []

    def init_state(self, source, storage_dir=None, embeddings=None):
        return super().init_state(source, storage_dir)

    def embed(self, source, index, embeddings):
        self.embedded.append(index)
        return True


@pytest.fixture(autouse=True)
def _what_is_there_is_no_garbage():
    """napari collects garbage at each layer that goes, and again after the test: through all modules, 0.2 s each."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_SESSIONS", str(tmp_path / "sessions"))
    monkeypatch.setenv("SAM2_EMBEDDINGS_CACHE", str(tmp_path / "embeddings"))


@pytest.fixture
def segment(make_napari_viewer, qtbot, monkeypatch):
    """Begins a segmentation of an image, as `segment(data, layer's arguments)`; gives the widget."""
    from napari_sam2 import segment_widget
    from napari_sam2.segment_widget import SegmentWidget

    predictor = FakePredictor()
    real = segment_widget.open_session
    widgets = []

    def open_session(choice, cache):
        session, cache = real(choice, cache)
        session._predictor = predictor
        return session, cache

    monkeypatch.setattr(segment_widget, "open_session", open_session)

    def begin(data=None, start=True, viewer=None, **kwargs):
        viewer = viewer or make_napari_viewer()
        if data is None:
            data = np.random.default_rng(0).integers(0, 1000, (8, 40, 50)).astype(np.uint16)
        viewer.add_image(data, **{"name": "cells", **kwargs})
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        widget.predictor = predictor
        widgets.append(widget)
        if start:
            widget.start_panel.start.click()
            qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
            settle(qtbot, widget)
        return widget

    yield begin
    for widget in widgets:
        with contextlib.suppress(RuntimeError):  # it went with its window
            widget.close()


@pytest.fixture
def no_thread_is_left():
    """Sees to it that the widgets have ended their threads."""
    yield
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and engines():
        time.sleep(0.01)
    assert not engines()


@pytest.fixture
def said():
    """What napari was given to notify of since the test began."""
    start = len(notification_manager.records)
    return lambda: [record.message for record in notification_manager.records[start:]]


def settle(qtbot, widget) -> None:
    """Wait until nothing is left to do."""
    done = []
    workspace = widget.segmentation.workspace
    qtbot.waitUntil(lambda: not workspace.waiting and not workspace.running, timeout=30000)
    from napari_sam2.engine import Urgency

    workspace.engine.submit(lambda: None, lambda _: done.append(True), urgency=Urgency.AHEAD)
    qtbot.waitUntil(lambda: bool(done), timeout=30000)


def go_on(qtbot, widget):
    assert widget.start_panel.go_on.isVisibleTo(widget.start_panel)
    widget.start_panel.go_on.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    settle(qtbot, widget)


def engines():
    return [thread for thread in threading.enumerate() if thread.name == "sam2-engine"]


def told(widget, said, pattern):
    """Whether the status line says it, and a notification did, in words and not as an exception."""
    assert not [text for text in said() if re.match(r"\w*(Error|Exception)\b", text)]
    return re.search(pattern, widget.status.text()) and [text for text in said() if re.search(pattern, text)]
