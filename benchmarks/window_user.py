"""Someone at a napari window who clicks, propagates and looks around, and a watch on the window meanwhile.

`python -m benchmarks.window_user PHASE JOB` is what `benchmarks.window` runs, in a process of its own: PHASE is `work`,
then `return` after a restart. JOB is a JSON file, see `Job`; what was measured is written beside it.
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


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes
    ----------
    volume : str
        See `write_volume`.
    store : str
        Label store for the training; empty for no training.
    visits : int
        Planes that are come to.
    clicks : int
    span : int
        Planes of a propagation.
    seconds : float
        How long nothing is done, and how long the window is watched beside a training.
    explain : bool
        Whether stacks are kept of what blocked the window.
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
        """Read what `asdict` wrote."""
        return cls(**json.loads(path.read_text()))


@dataclass
class Measured:
    """Times in seconds by what was done: how long it took, and how long the window was blocked; and what blocked it."""

    times: dict[str, list[float]] = field(default_factory=dict)
    gaps: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    stacks: list[str] = field(default_factory=list)


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
        return self.viewer.window.dock_widgets["Segment (napari-sam2)"].segmentation

    @property
    def workspace(self) -> Any:
        """Of the segmentation."""
        return self.segmentation.workspace

    def wait(self, until: Callable[[], object]) -> None:
        """Let the window live until something is so."""
        loop, timer, end = QEventLoop(), QTimer(), time.monotonic() + PATIENCE
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
        worst = sorted(gaps, key=lambda gap: gap.length - gap.drawing)[-3:]
        self.measured.stacks += [
            f"{what}: {1000 * gap.length:.0f} ms, drawing {1000 * gap.drawing:.0f}, cpu {1000 * gap.computing:.0f}\n" + "\n~\n".join(gap.stacks[:: max(1, len(gap.stacks) // 3)])
            for gap in worst
            if gap.stacks
        ]
        self.watch.clear()

    def go_to(self, z: int) -> None:
        """Bring a plane into view."""
        self.viewer.dims.set_point(0, self.image.data_to_world((z, 0, 0))[0])

    def come_to(self, z: int, what: str) -> None:
        """Bring a plane into view and wait until it is embedded."""
        plane, seen = (("z", z),), []
        self.workspace.embedded.connect(seen.append)
        begun = time.perf_counter()
        self.go_to(z)
        self.wait(lambda: plane in seen)
        self.measured.times.setdefault(what, []).append(time.perf_counter() - begun)
        self.workspace.embedded.disconnect(seen.append)

    def click(self, cell: int, z: int) -> None:
        """Click on a cell, for a new object, and wait until its mask is drawn."""
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

        QTest.mouseMove(self.canvas.native, place)
        self.rest(0.2)
        self.canvas.native.frameSwapped.connect(swapped)
        begun = time.perf_counter()
        QTest.mouseClick(self.canvas.native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
        self.wait(lambda: drawn)
        self.canvas.native.frameSwapped.disconnect(swapped)
        self.measured.times.setdefault("click", []).append(drawn[0] - begun)

    def place(self, *data: float) -> QPoint:
        """Where on the canvas a point of the image lies."""
        row, column = self.image.data_to_world(data)[1:]
        x, y = self.canvas.view.scene.transform.map([column, row])[:2]
        return QPoint(round(x + self.canvas.view.pos[0]), round(y + self.canvas.view.pos[1]))

    def propagate(self, ids: list[int], first: int, what: str, follow: bool) -> None:
        """Track objects, the view staying where it is or going along."""
        span = self.job.span
        steps = iter(range(first + 1, first + span))

        def go_along(planes: Any) -> None:
            z = next(steps, None)
            if follow and planes and z is not None:
                self.go_to(z)

        self.workspace.planes_changed.connect(go_along)
        with self.watched(what):
            begun = time.perf_counter()
            self.workspace.propagate(ids, {"z": (first, first + span)}, "forward")
            self.settle()
            self.measured.times.setdefault(what, []).append(time.perf_counter() - begun)
        self.workspace.planes_changed.disconnect(go_along)


def work(user: User) -> None:
    """From the volume to objects, and a training beside it."""
    job = user.job
    with user.watched("nothing"):
        user.rest(job.seconds)
    first = user.planes // 2
    with user.watched("napari alone: to the next plane"):
        for z in range(first, first + job.span):
            user.go_to(z)
            user.rest(0.1)
    redraw(user)
    widget = user.viewer.window.add_plugin_dock_widget("napari-sam2", "Segment")[1]
    user.go_to(0)
    user.rest()
    with user.watched("Start"):
        begun = time.perf_counter()
        embedded: list[Any] = []
        widget.start_panel.start.click()
        user.wait(lambda: user.segmentation is not None)
        user.workspace.embedded.connect(embedded.append)
        user.wait(lambda: embedded)
        user.measured.times["Start"] = [time.perf_counter() - begun]
        user.settle()
    places = [round(first / 4 + 10 * k) for k in range(job.visits)]
    places = [min(z, user.planes - 1) for z in places]
    for z in places:
        with user.watched("embedding"):
            user.come_to(z, "embedding")
            user.settle()
    ids = []
    for k in range(3):
        user.click(k, places[-1])
        ids.append(user.segmentation.active)
        user.settle()
    for ids_of_run, how in ((ids[:1], "1 object"), (ids, "3 objects")):
        user.propagate(ids_of_run, places[-1], f"propagation, {how}", follow=False)
        user.go_to(places[-1])
        user.settle()
        user.propagate(ids_of_run, places[-1], f"propagation, {how}, view following", follow=True)
        user.go_to(places[-1])
        user.settle()
    user.measured.times.pop("click")
    cells = range(3, CELLS**2)
    for number in range(job.clicks):
        z = places[number // len(cells) % len(places)]
        if number % len(cells) == 0:
            user.go_to(z)
            user.settle()
        with user.watched("clicks"):
            user.click(cells[number % len(cells)], z)
            user.settle()
    with user.watched("undo and redo"):
        for _ in range(3):
            user.workspace.undo()
            user.settle()
        for _ in range(3):
            user.workspace.redo()
            user.settle()


def redraw(user: User) -> None:
    """Change a plane of labels in memory, which napari colours and draws."""
    layer = user.viewer.add_labels(np.zeros((user.side, user.side), np.uint32), scale=user.image.scale[1:])
    with user.watched("napari alone: a plane of labels drawn"):
        for number in range(user.job.span):
            layer.data[: user.side // 4] = number
            layer.refresh(thumbnail=False, extent=False, highlight=False)
            user.rest(0.1)
    user.viewer.layers.remove(layer)


def main(phase: str, path: Path) -> None:
    """Do one phase of a job."""
    job = Job.load(path)
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    viewer.open(job.volume, plugin="napari-sam2")
    user = User(viewer, job)
    user.rest(1)
    viewer.reset_view()
    {"work": work}[phase](user)
    path.with_name(f"{phase}.json").write_text(json.dumps(asdict(user.measured)))
    segment = user.segmentation
    if segment is not None:
        viewer.window.dock_widgets["Segment (napari-sam2)"].close_segmentation()
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
