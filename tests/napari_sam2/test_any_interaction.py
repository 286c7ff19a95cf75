"""Any order of what users do in the window: no exception, exact undo, locked objects untouched, nothing shown wrong.

SAM2_EXAMPLES sets how many orders are tried, by default few; with it they are other ones in each run.
"""

import os
import re
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from qtpy.QtCore import Qt

from napari_sam2.engine import Urgency
from napari_sam2.object_table import LOCK, NAME, SHOW
from napari_sam2.prompt_rows import ROUNDING, rows_of

EXAMPLES = int(os.environ.get("SAM2_EXAMPLES", "0"))
STEPS = 20
HEIGHT, WIDTH = 22, 30
IMAGES = {
    "2D": ("yx", (HEIGHT, WIDTH)),
    "3D": ("zyx", (5, HEIGHT, WIDTH)),
    "3D in channels": ("czyx", (2, 4, HEIGHT, WIDTH)),
    "3D+t": ("tzyx", (3, 3, HEIGHT, WIDTH)),
}
SHARES = st.floats(0, 1)
XS, YS = st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)
WAIT = st.sampled_from([True, True, True, False])
UNEXPECTED = re.compile(r"^\w*(Error|Exception|Warning)\b")


class AnyInteraction(RuleBasedStateMachine):
    """What there is to act on is drawn as a share, so that most interactions do something, and some cannot be done."""

    viewer = None
    qtbot = None
    open_widget = None
    folder = None
    count = 0

    @initialize(kind=st.sampled_from(sorted(IMAGES)))
    def begin(self, kind):
        AnyInteraction.count += 1
        os.environ["SAM2_SESSIONS"] = str(self.folder / str(self.count))
        self.axes, shape = IMAGES[kind]
        data = np.random.default_rng(3).integers(0, 255, shape, dtype=np.uint8)
        self.viewer.add_image(data, name="cells", axis_labels=tuple(self.axes))
        self.widget = self.open_widget()
        self.seen = {}
        self.before = None
        self.run_may_go_on = True
        self.errors = []
        with self.no_exceptions():
            self.start(self.widget.start_panel.start)
        self.settle()

    def start(self, button):
        button.click()
        self.qtbot.waitUntil(lambda: self.widget.segmentation is not None, timeout=30000)
        self.segmentation.workspace.failed.connect(self.errors.append)
        self.segmentation.labels.layer.brush_size = 3

    # What the user does

    @rule(share=SHARES, x=st.integers(-4, WIDTH + 4), y=st.integers(-4, HEIGHT + 4), switch=st.booleans(), wait=WAIT)
    def click(self, share, x, y, switch, wait):
        with self.act(wait):
            if switch:
                self.segmentation.toggle_label()
            self.segmentation.prompts.points.add(self.at(share, x, y))

    @rule(
        share=SHARES, x=XS, y=YS, width=st.integers(0, 9), height=st.integers(0, 9), kind=st.integers(0, 3), wait=WAIT
    )
    def draw(self, share, x, y, width, height, kind, wait):
        shape = ("rectangle", "path", "polygon", "ellipse")[kind]
        with self.act(wait):
            self.add_shape(shape, share, x, y, width, height)

    @rule(share=SHARES, x=XS, y=YS, wait=WAIT)
    def move_point(self, share, x, y, wait):
        points = self.segmentation.prompts.points
        with self.act(wait):
            if len(points.data):
                index = self.pick(range(len(points.data)), share)
                data = points.data.copy()
                data[index, -2:] = y, x
                points.data = data
                points.events.data(value=data, action="changed", data_indices=(index,), vertex_indices=((),))

    @rule(share=SHARES, dx=st.integers(-5, 5), wait=WAIT)
    def move_shape(self, share, dx, wait):
        shapes = self.segmentation.prompts.shapes
        with self.act(wait):
            if len(shapes.data) and self.viewer.dims.ndisplay == 2:  # napari moves none in 3D
                index = self.pick(range(len(shapes.data)), share)
                shapes._data_view.shift(index, [0, dx])
                shapes.events.data(value=shapes.data, action="changed", data_indices=(index,), vertex_indices=((),))

    @rule(share=SHARES, points=st.booleans(), wait=WAIT)
    def delete_prompt(self, share, points, wait):
        prompts = self.segmentation.prompts
        layer = prompts.points if points else prompts.shapes
        with self.act(wait):
            if len(layer.data):
                layer.selected_data = {self.pick(range(len(layer.data)), share)}
                layer.remove_selected()

    @rule(share=SHARES, x=XS, y=YS, label=st.integers(0, 4), fill=st.booleans(), wait=WAIT)
    def paint(self, share, x, y, label, fill, wait):
        layer = self.segmentation.labels.layer
        with self.act(wait):
            where = self.at(share, x, y)
            self.go_to(where)
            if self.viewer.dims.ndisplay == 2:
                (layer.fill if fill else layer.paint)(where, label)

    @rule(which=st.sampled_from(["new_object", "next_object", "previous_object", "jump_to_object", "next_uncertain"]))
    def turn_to(self, which):
        with self.act():
            getattr(self.segmentation, which)()

    @rule(share=SHARES)
    def choose(self, share):
        with self.act():
            if self.table.rowCount():
                self.widget._work.table.selectRow(self.pick(range(self.table.rowCount()), share))

    @rule(wait=WAIT)
    def delete_object(self, wait):
        with self.act(wait):
            self.segmentation.delete_object()

    @rule(wait=WAIT)
    def merge(self, wait):
        with self.act(wait):
            self.widget._work.table.selectAll()
            self.widget._work._merge()

    @rule(share=SHARES, x=XS, y=YS, width=st.integers(1, 20), wait=WAIT)
    def split(self, share, x, y, width, wait):
        with self.act(wait):
            self.segmentation.use("split")
            self.add_shape("polygon", share, x, y, width, width)

    @rule(share=SHARES, column=st.sampled_from([LOCK, SHOW]))
    def check(self, share, column):
        with self.act():
            if self.table.rowCount():
                index = self.table.index(self.pick(range(self.table.rowCount()), share), column)
                role = Qt.ItemDataRole.CheckStateRole
                on = Qt.CheckState(self.table.data(index, role)) == Qt.CheckState.Checked
                self.table.setData(index, (Qt.CheckState.Unchecked if on else Qt.CheckState.Checked).value, role)

    @rule(share=SHARES, name=st.sampled_from(["", "cell", "<b>ä"]), wait=WAIT)
    def rename(self, share, name, wait):
        with self.act(wait):
            if self.table.rowCount():
                self.table.setData(self.table.index(self.pick(range(self.table.rowCount()), share), NAME), name)

    @rule(
        direction=st.sampled_from(["both", "forward", "backward"]),
        until_lost=st.booleans(),
        part=st.booleans(),
        stop_after=st.sampled_from([None, 0, 1, 2]),
        wait=WAIT,
    )
    def propagate(self, direction, until_lost, part, stop_after, wait):
        with self.act(wait):
            self.run_may_go_on = True
            panel = self.widget._work.run_panel
            panel.until_lost.setChecked(until_lost)
            panel.first.setValue(1 if part else 0)
            self.segmentation.propagate(direction)
            self.stop(stop_after)

    @rule(stop_after=st.sampled_from([None, 0, 1]), wait=WAIT)
    def resume(self, stop_after, wait):
        with self.act(wait):
            self.run_may_go_on = True
            self.segmentation.workspace.resume()
            self.stop(stop_after)

    @rule()
    def undo(self):
        done, known = len(self.history.done), self.before is not None
        with self.act():
            self.segmentation.workspace.undo()
        if known:  # nothing else waited to be done
            assert len(self.history.done) == max(0, done - 1)

    @rule()
    def redo(self):
        done, undone, known = len(self.history.done), len(self.history.undone), self.before is not None
        with self.act():
            self.segmentation.workspace.redo()
        if known:
            assert len(self.history.done) == done + (undone > 0)

    @rule(shares=st.tuples(SHARES, SHARES))
    def change_plane(self, shares):
        with self.act():
            for axis, share in zip(range(len(self.axes) - 2), shares):
                self.viewer.dims.set_point(axis, self.pick(range(self.viewer.layers["cells"].data.shape[axis]), share))

    @rule()
    def turn_to_other_view(self):
        with self.act():
            if self.axes != "yx":
                self.viewer.dims.ndisplay = 5 - self.viewer.dims.ndisplay

    @rule(tool=st.sampled_from(["points", "box", "scribble", "lasso", "split", "brush", "move"]))
    def use(self, tool):
        with self.act():
            self.segmentation.use(tool)

    @rule(wait=st.booleans())
    def close_and_go_on(self, wait):
        if wait:
            self.settle()
        known = bool(self.history.done)
        with self.act():
            self.run_may_go_on = not wait
            self.widget.close_segmentation()
            panel = self.widget.start_panel
            assert panel.go_on.isVisibleTo(panel) or not known
            if panel.go_on.isVisibleTo(panel):
                self.start(panel.go_on)
            else:
                self.seen = {}
                self.start(panel.start)
            if not wait:
                self.before = None  # what was asked for last may not have begun

    # What must be true

    @invariant()
    def is_consistent(self):
        if self.before is None or self.pending:
            return
        workspace = self.segmentation.workspace
        stored = workspace.session.labels.volume.read()
        np.testing.assert_array_equal(np.asarray(self.segmentation.labels.view), self.as_layer(stored))
        self.canvas_shows(stored)
        self.prompts_are_shown()
        assert [self.table.object_at(row) for row in range(self.table.rowCount())] == list(workspace.state)
        assert self.segmentation.active in {0, *workspace.state.objects}
        for item in workspace.state:
            shown = self.segmentation.labels.layer.colormap.map(item.id)[..., 3] > 0
            assert bool(shown) == item.visible

    def canvas_shows(self, stored):
        layer = self.segmentation.labels.layer
        shown = layer._slice.image.raw
        if self.viewer.dims.ndisplay == 2:
            outside = layer.world_to_data(self.viewer.dims.point)[:-2]
            where = tuple(round(v) for v, a in zip(outside, self.axes) if a != "c")
            np.testing.assert_array_equal(shown, stored[where])
        else:
            where = tuple(round(v) for v in layer.world_to_data(self.viewer.dims.point)[:-3])
            np.testing.assert_array_equal(shown, self.as_layer(stored)[where])

    def prompts_are_shown(self):
        prompts = self.segmentation.prompts
        rows = sorted([*prompts._rows(prompts.points), *prompts._rows(prompts.shapes)], key=lambda row: row.serial)
        expected = sorted(rows_of(self.segmentation.workspace.state), key=lambda row: row.serial)
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected):
            assert (row.object_id, row.plane, row.kind, row.label, row.serial) == (
                other.object_id, other.plane, other.kind, other.label, other.serial
            )  # fmt: skip
            corners = other.corners if len(other.corners) > 1 or row.kind == "point" else other.corners * 2
            np.testing.assert_allclose(row.corners, corners, atol=ROUNDING)

    def teardown(self):
        if not hasattr(self, "widget"):
            return
        try:
            if self.widget.segmentation is not None and not self.errors:
                self.settle()
                self.undo_and_redo_all()
        finally:
            self.viewer.dims.ndisplay = 2
            self.widget.close_segmentation()
            self.viewer.layers.clear()
            assert not [thread for thread in threading.enumerate() if thread.name == "sam2-engine"]

    def undo_and_redo_all(self):
        session = self.segmentation.workspace.session
        last = self.now()
        count = len(self.history.done)
        while session.undo() is not None:
            self.compare(self.now(), self.seen.get(self.top))
        self.compare(self.now(), self.seen[-1])
        for _ in range(count):
            session.redo()
            self.compare(self.now(), self.seen.get(self.top))
        self.compare(self.now(), last)

    # What the rules are made of

    @property
    def segmentation(self):
        return self.widget.segmentation

    @property
    def history(self):
        return self.segmentation.workspace.session.history

    @property
    def table(self):
        return self.widget._work.table.model()

    @property
    def top(self):
        """What names the last act: where it is in the journal."""
        return self.history.done[-1].start if self.history.done else -1

    @property
    def pending(self):
        workspace = self.segmentation.workspace
        return bool(workspace.waiting or workspace.running or self.segmentation.labels.view.painted())

    @contextmanager
    def no_exceptions(self):
        with self.qtbot.captureExceptions() as caught:
            yield
        if caught:
            raise caught[0][1]

    @contextmanager
    def act(self, wait=True):
        """An interaction, and what comes of it."""
        before = self.before
        if not wait:
            self.before = None
        with self.no_exceptions():
            yield
            if wait:
                self.settle()
        if before is not None and wait:
            for item in before[0]:
                now = self.segmentation.workspace.state.objects.get(item.id)
                if item.locked and now is not None and now.locked:
                    np.testing.assert_array_equal(self.before[1] == item.id, before[1] == item.id)

    def settle(self):
        """Wait until nothing is left to do, and compare with what was there after the same act before."""
        workspace = self.segmentation.workspace
        self.qtbot.waitUntil(lambda: not self.pending, timeout=30000)
        done = []
        workspace.engine.submit(lambda: None, done.append, urgency=Urgency.AHEAD)
        self.qtbot.waitUntil(lambda: bool(done) and not self.pending, timeout=30000)
        assert not [text for text in self.errors if UNEXPECTED.match(text)]
        self.before = self.now()
        top = self.history.done[-1] if self.history.done else None
        if not (self.run_may_go_on and top is not None and top.kind == "run"):
            self.compare(self.before, self.seen.get(self.top))
        self.seen[self.top] = self.before
        self.run_may_go_on = False

    def now(self):
        session = self.segmentation.workspace.session
        return session.state, session.labels.volume.read()

    def compare(self, found, expected):
        if expected is not None:
            assert found[0] == expected[0]
            np.testing.assert_array_equal(found[1], expected[1])

    def pick(self, choices, share):
        return choices[min(int(share * len(choices)), len(choices) - 1)]

    def at(self, share, x, y):
        """A place in the layer: on the plane in view if the share is small."""
        layer = self.segmentation.image
        if share < 0.5:
            outside = np.round(layer.world_to_data(self.viewer.dims.point)[:-2])
        else:
            outside = [self.pick(range(n), 2 * share - 1) for n in layer.data.shape[:-2]]
        return np.array([*outside, y, x], float)

    def go_to(self, where):
        for axis, value in enumerate(where[:-2]):
            self.viewer.dims.set_point(axis, value)

    def add_shape(self, shape, share, x, y, width, height):
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self.segmentation.prompts.shapes.add(np.array([self.at(share, *c) for c in corners]), shape_type=shape)

    def stop(self, after):
        """Stop a run after so many planes."""
        workspace = self.segmentation.workspace
        if after == 0:
            workspace.cancel()
        elif after is not None:
            seen = []
            self.qtbot.waitUntil(lambda: not workspace.running or seen.append(1) or len(seen) > after, timeout=30000)
            workspace.cancel()

    def as_layer(self, stored):
        """Labels of the session, t, z, y, x, as a layer that may have channels has them."""
        if "c" not in self.axes:
            return stored
        return np.broadcast_to(stored, (2, *stored.shape))


@pytest.fixture
def machine(segment, qtbot, make_napari_viewer, tmp_path, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setenv("SAM2_SESSIONS", "")
    widget = segment(np.zeros((4, 4), np.uint8), start=False)
    widget.viewer.layers.clear()
    AnyInteraction.viewer, AnyInteraction.qtbot, AnyInteraction.folder = widget.viewer, qtbot, tmp_path
    AnyInteraction.open_widget = staticmethod(lambda: widget)
    yield AnyInteraction
    AnyInteraction.viewer = AnyInteraction.qtbot = AnyInteraction.open_widget = None
    assert not raised


def test_any_order_of_interactions(machine):
    few = {"max_examples": 8, "derandomize": True, "database": None, "phases": [Phase.generate]}
    many = {"max_examples": EXAMPLES, "database": None, "phases": [Phase.generate]}
    run_state_machine_as_test(
        machine,
        settings=settings(
            **(many if EXAMPLES else few),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
