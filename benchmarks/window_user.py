"""Someone at a napari window who clicks, propagates and looks around, and a watch on the window meanwhile.

`python -m benchmarks.window_user PHASE JOB` is what `benchmarks.window` runs, in a process of its own: PHASE is `work`,
then `return` after a restart. JOB is a JSON file, see `Job`; what was measured is written beside it as PHASE.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest

from benchmarks.stalls import Watch
from benchmarks.window_volume import CELLS, cell_centre

PATIENCE = 300.0
"""Seconds that anything may take."""


PATIENCE_TRAINING = 600.0
"""The same, for a training to begin."""

CLICK, EMBED, AGAIN, START = "click to mask", "plane to embedded", "the same, after a restart", "Start, with the model"
ALONE = "napari alone"
MOVE, EMBEDDING, PROPAGATION, TRAINING = "to another plane", "embedding", "propagation", "training"
"""How what is measured is called; see `Measured`."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes
    ----------
    volume : str
        See `write_volume`.
    store : str
        Label store for a training; empty for none.
    visits : int
        Planes that are come to.
    clicks : int
    span : int
        Planes of a propagation.
    seconds : float
        How long the window is watched while nothing is done, and beside a training.
    explain : bool
        Whether it is kept what the threads were at when the window was blocked.
    """

    volume: str
    store: str
    visits: int
    clicks: int
    span: int
    seconds: float
    explain: bool

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> Path:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))
        return path


@dataclass
class Measured:
    """What came of it.

    Attributes
    ----------
    times : dict
        Seconds that something took, by its name, each time.
    gaps : dict
        `Gap.length`, `Gap.drawing` and `Gap.computing` of all times without a tick, by what was done meanwhile.
    stacks : list of str
        What the threads were at in the longest of them.
    """

    times: dict[str, list[float]] = field(default_factory=dict)
    gaps: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    stacks: list[str] = field(default_factory=list)

    def time(self, what: str, seconds: float) -> None:
        """Note how long something took."""
        self.times.setdefault(what, []).append(seconds)


class User:
    """Works at a window.

    Parameters
    ----------
    viewer : napari.Viewer
    job : Job
    """

    def __init__(self, viewer: napari.Viewer, job: Job) -> None:
        self.viewer = viewer
        self.job = job
        self.image: Any = viewer.layers[0]
        self.planes, self.side = (int(n) for n in self.image.data.shape[:2])
        self.measured = Measured()
        self.watch = Watch(job.explain)
        self.canvas = viewer.window._qt_viewer.canvas
        draw, native = self.canvas._scene_canvas.events.draw, self.canvas.native
        draw.connect(self.watch.begin_drawing, position="first")
        draw.connect(self.watch.end_drawing, position="last")
        native.aboutToCompose.connect(self.watch.begin_drawing)
        native.frameSwapped.connect(self.watch.end_drawing)

    @property
    def segmentation(self) -> Any:
        """What is under way in the widget *Segment*."""
        return self.widget.segmentation

    @property
    def workspace(self) -> Any:
        """Of the segmentation."""
        return self.segmentation.workspace

    @property
    def widget(self) -> Any:
        """The widget *Segment*."""
        return self.viewer.window.dock_widgets["Segment (napari-sam2)"]

    def wait(self, until: Callable[[], object], patience: float = PATIENCE) -> None:
        """Let the window live until something is so."""
        loop, timer, end = QEventLoop(), QTimer(), time.monotonic() + patience
        timer.timeout.connect(lambda: loop.quit() if until() or time.monotonic() > end else None)
        timer.start(5)
        loop.exec()
        timer.stop()
        if time.monotonic() > end:
            raise TimeoutError("the window does not answer")

    def rest(self, seconds: float = 0.5) -> None:
        """Let the window live for a moment."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def settle(self) -> None:
        """Wait until nothing is left to do."""
        from napari_sam2.engine import Urgency

        self.wait(lambda: not self.workspace.waiting and not self.workspace.running)
        done: list[bool] = []
        self.workspace.engine.submit(lambda: None, lambda _: done.append(True), urgency=Urgency.AHEAD)
        self.wait(lambda: done)

    @contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Note how long the window is blocked during something."""
        self.watch.clear()
        yield
        self.rest(0.1)
        gaps = self.watch.gaps
        self.measured.gaps.setdefault(what, []).extend((gap.length, gap.drawing, gap.computing) for gap in gaps)
        worst = sorted((gap for gap in gaps if gap.stacks), key=lambda gap: gap.length - gap.drawing)[-3:]
        for gap in worst:
            parts = [round(1000 * part) for part in (gap.length, gap.drawing, gap.computing)]
            head = "{}: {} ms, drawing {}, CPU of the thread {}".format(what, *parts)
            samples = gap.stacks[:: max(1, len(gap.stacks) // 3)]
            self.measured.stacks.append("\n~\n".join([head, *samples]))
        self.watch.clear()

    def go_to(self, z: int) -> None:
        """Bring a plane into view."""
        self.viewer.dims.set_point(0, self.image.data_to_world((z, 0, 0))[0])

    def come_to(self, z: int, what: str) -> None:
        """Bring a plane into view and wait until it and its neighbours are embedded."""
        plane = (("z", z),)
        seen: dict[Any, float] = {}

        def embedded(which: Any) -> None:
            seen[which] = time.perf_counter()

        self.workspace.embedded.connect(embedded)
        begun = time.perf_counter()
        with self.watched(MOVE):
            self.go_to(z)
        with self.watched(EMBEDDING):
            self.wait(lambda: plane in seen)
            self.measured.time(what, seen[plane] - begun)
            self.settle()
        self.workspace.embedded.disconnect(embedded)

    def click(self, cell: int, z: int, what: str | None = None) -> int:
        """Click on a cell of the plane in view and wait until its mask is drawn; the new object's id."""
        self.segmentation.new_object()
        self.rest(0.2)
        y, x = cell_centre(cell, z, self.side)
        place, position = self.place(z, y, x), self.image.data_to_world((z, y, x))
        drawn: list[float] = []
        layer: Labels = self.segmentation.labels.layer
        before = layer.get_value(position, world=True)

        def swapped() -> None:
            if layer.get_value(position, world=True) != before:
                drawn.append(time.perf_counter())

        mouse: Any = QTest  # whose stubs take its functions for methods
        mouse.mouseMove(self.canvas.native, place)
        self.rest(0.2)
        self.canvas.native.frameSwapped.connect(swapped)
        begun = time.perf_counter()
        mouse.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
        self.wait(lambda: drawn)
        self.canvas.native.frameSwapped.disconnect(swapped)
        if what is not None:
            self.measured.time(what, drawn[0] - begun)
        self.settle()
        return int(self.segmentation.active)

    def place(self, *data: float) -> QPoint:
        """Where on the canvas a point of the image lies."""
        row, column = self.image.data_to_world(data)[1:]
        x, y = self.canvas.view.scene.transform.map([column, row])[:2]
        return QPoint(round(x + self.canvas.view.pos[0]), round(y + self.canvas.view.pos[1]))

    def begin(self, button: str) -> None:
        """Open the widget, push one of its buttons, and wait until the plane in view is embedded."""
        panel = self.viewer.window.add_plugin_dock_widget("napari-sam2", "Segment")[1].start_panel
        self.rest()
        embedded: list[Any] = []
        with self.watched(START):
            begun = time.perf_counter()
            getattr(panel, button).click()
            self.wait(lambda: self.segmentation is not None)
            self.workspace.embedded.connect(embedded.append)
            self.wait(lambda: embedded)
            self.measured.time(START, time.perf_counter() - begun)
        self.settle()

    def propagate(self, ids: list[int], first: int, follow: bool) -> None:
        """Track objects from a plane on, the view staying there or going along."""
        span = self.job.span
        coming = iter(range(first + 1, first + span))

        def go_along(planes: Any) -> None:
            z = next(coming, None) if planes else None
            if follow and z is not None:
                self.go_to(z)

        self.go_to(first)
        self.settle()
        self.workspace.planes_changed.connect(go_along)
        count = f"{len(ids)} object{'s' * (len(ids) > 1)}"
        name = f"view following a propagation, {count}" if follow else f"{PROPAGATION}, {count}"
        with self.watched(name):
            self.workspace.propagate(ids, {"z": (first, first + span)}, "forward")
            self.settle()
        self.workspace.planes_changed.disconnect(go_along)


def work(user: User) -> None:
    """From the volume to objects, and a training beside it."""
    job = user.job
    with user.watched(f"{ALONE}: nothing is done"):
        user.rest(job.seconds)
    user.go_to(0)
    with user.watched(f"{ALONE}: to the next plane"):
        for z in range(1, 1 + min(job.span, user.planes - 1)):
            user.go_to(z)
            user.rest(0.2)
    redraw(user)
    user.go_to(0)
    user.begin("start")
    for z in places(user):
        user.come_to(z, EMBED)
    first = places(user)[-1]
    ids = [user.click(cell, first) for cell in range(3)]
    for follow in (False, True):
        user.propagate(ids[:1], first, follow)
        user.propagate(ids, first, follow)
    cells = range(3, CELLS**2)
    for number in range(job.clicks):
        turn, cell = divmod(number, len(cells))
        z = places(user)[turn % job.visits]
        user.go_to(z)
        user.settle()
        with user.watched("clicks, each saved"):
            user.click(cells[cell], z, CLICK)
    with user.watched("undo and redo, each saved"):
        for step in (user.workspace.undo, user.workspace.redo) * 3:
            step()
            user.settle()
    if job.store:
        train(user)


def come_back(user: User) -> None:
    """What a restart finds."""
    user.begin("go_on")
    for z in places(user):
        user.come_to(z, AGAIN)


def places(user: User) -> list[int]:
    """The planes that are worked on, too far from one another to be embedded ahead, the last with room for a run."""
    room = user.planes - user.job.span
    return [max(1, round(room * (k + 1) / (user.job.visits + 1))) for k in range(user.job.visits)]


def redraw(user: User) -> None:
    """Change a plane of labels in memory, which napari draws, without anything of ours."""
    layer = user.viewer.add_labels(np.zeros((user.side, user.side), np.uint16), scale=user.image.scale[1:])
    user.rest()
    with user.watched(f"{ALONE}: a plane of labels is drawn"):
        for number in range(user.job.span):
            layer.data[: user.side // 4] = number
            layer.refresh(thumbnail=False, extent=False, highlight=False)
            user.rest(0.2)
    user.viewer.layers.remove(layer)


def train(user: User) -> None:
    """Watch the window beside a training that the widget *Fine-tune* has started and follows."""
    from sam2_core.finetune_job import FinetuneRequest, JobState

    widget = user.viewer.window.add_plugin_dock_widget("napari-sam2", "Fine-tune")[1]
    request = FinetuneRequest(user.job.store, "window-benchmark", steps=1000, images=1, limit=1, automatic=0)
    widget.form.show_request(request)
    user.wait(lambda: widget.start_button.isEnabled())
    with user.watched(f"{TRAINING} starts"):
        widget.start_button.click()
        user.wait(lambda: widget.job is not None and widget.job.log.losses, PATIENCE_TRAINING)
    with user.watched(TRAINING):
        user.rest(3 * user.job.seconds)
    if widget.job.state is not JobState.TRAINING:
        raise RuntimeError(f"the training has ended before its time: {widget.job.error}")
    widget.job.kill()
    user.wait(lambda: not widget.job.state.is_running)


def main(phase: str, path: Path) -> None:
    """Do one phase of a job."""
    job = Job.load(path)
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    viewer.open(job.volume, plugin="napari-sam2")
    user = User(viewer, job)
    user.rest(1)
    viewer.reset_view()
    user.rest(1)
    {"work": work, "return": come_back}[phase](user)
    path.with_name(f"{phase}.json").write_text(json.dumps(asdict(user.measured)))
    user.watch.close()
    user.widget.close_segmentation()
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
