"""A session at work: what the window asks of it is done in a thread of its own, and what comes of it is told.

Nothing here knows Qt or napari; the window calls methods, which return at once, and listens to the signals.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from psygnal import Signal

from napari_sam2.engine import Engine, Stop, Urgency
from napari_sam2.prompt_rows import Row, changes, prompt_of
from napari_sam2.runs import Search, Step, Stopped, searching, tracking
from sam2_core.errors import InputError
from sam2_core.volume.session import Session
from sam2_core.volume.session_plan import Direction
from sam2_core.volume.session_state import Plane, State

AHEAD = 2
"""Planes on either side of the one in view that are embedded when there is nothing else to do."""

Task = Literal["propagate", "find objects"]
"""What a run does."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done and to do, the seconds it is likely to go on (None at first), and what it does."""

    done: float
    total: int
    remaining: float | None
    task: Task


@dataclass
class _Job:
    """A run under way."""

    task: Task
    stop: Stop = field(default_factory=Stop)
    started: float = field(default_factory=time.monotonic)
    last: Step = field(default_factory=lambda: Step(0, 0))


class Workspace:
    """A session and the thread that computes for it.

    Signals, emitted in the thread that the engine's answers are for: `objects_changed` (objects or their prompts),
    `planes_changed` (the labels of these planes, None for any), `progressed` (a `Progress`, None at the end),
    `busy_changed`, `embedded` (a plane), `failed` and `said` (a sentence).

    Parameters
    ----------
    session : Session
        It is closed with the workspace.
    engine : Engine
        Closed with the workspace, too.
    """

    objects_changed = Signal()
    planes_changed = Signal(object)
    progressed = Signal(object)
    busy_changed = Signal(bool)
    embedded = Signal(object)
    failed = Signal(str)
    said = Signal(str)

    def __init__(self, session: Session, engine: Engine) -> None:
        self.session = session
        self.engine = engine
        self.engine.busy = self.busy_changed.emit
        self.waiting = 0
        self._job: _Job | None = None
        self._taken: set[int] = set()

    @property
    def state(self) -> State:
        """Objects and prompts, as the session has them now."""
        return self.session.state

    @property
    def running(self) -> bool:
        """Whether a propagation or a search is under way."""
        return self._job is not None

    @property
    def resumable(self) -> bool:
        """Whether the last act is a propagation that was stopped."""
        entry = self.session.history.unfinished
        return not self.running and entry is not None and entry.kind == "run"

    def next_id(self) -> int:
        """An id for a new object, which no other gets."""
        chosen = max([0, *self.state.objects, *self._taken]) + 1
        self._taken.add(chosen)
        return chosen

    def add(self, row: Row) -> None:
        """Give an object a prompt; the object is new if there is none of that id."""

        prompt = prompt_of(row, self.session.grid.name(row.plane))
        given = prompt.model_dump(exclude={"frame", "mask"}, exclude_none=True)
        self._act(lambda: self._give(row.object_id, row.plane, given), [row.plane])

    def find_brightest(
        self, places: Sequence[tuple[Plane, float, float]], found: Callable[[Plane, float, float], None]
    ) -> None:
        """Tell where, of places (plane, x, y), the image is brightest, the first of equals."""

        def work() -> tuple[Plane, float, float]:
            values = []
            for plane, on_it in itertools.groupby(places, key=lambda place: place[0]):
                axis, index, fixed = self.session.where(plane)
                pixels = self.session.source(fixed, axis).raw(index)
                values += [float(pixels[round(y), round(x), 0]) for _, x, y in on_it]
            return places[int(np.argmax(values))]

        self.engine.submit(work, lambda place: found(*place), self._fail)

    def add_mask(self, object_id: int, plane: Plane, mask: np.ndarray) -> None:
        """Give an object its mask, (height, width) bool, on a plane; the object is new if there is none of that id."""
        self._act(lambda: self._give(object_id, plane, {"mask": mask}), [plane])

    def edit(self, rows: Sequence[Row]) -> None:
        """Make the session's prompts those that are shown, after some were moved or deleted."""
        name = self.session.grid.name
        for change in changes(self.state, rows, name):
            self._act(
                lambda c=change: self.session.replace_prompts(c.object_id, name(c.plane), c.prompts),  # type: ignore[misc]
                [change.plane],
            )

    def paint(self, plane: Plane, labels: np.ndarray, done: Callable[[], None]) -> None:
        """Take painted labels of a plane as a correction; `done` is called at the end, whatever came of it."""
        frame = self.session.grid.name(plane)
        self._act(lambda: self.session.paint(frame, labels, correct=True), [plane], done)

    def change_object(self, object_id: int, **changes: Any) -> None:
        """Change an object's name, class, colour, lock or visibility."""
        self._act(lambda: self.session.edit_object(object_id, **changes))

    def delete_objects(self, object_ids: Iterable[int]) -> None:
        """Delete objects with their prompts and pixels."""
        for object_id in object_ids:
            self._act(lambda i=object_id: self.session.delete_object(i), None)  # type: ignore[misc]

    def merge_objects(self, into: int, others: Sequence[int]) -> None:
        """Make objects one."""
        self._act(lambda: self.session.merge_objects(into, others), None)

    def split_object(self, object_id: int, plane: Plane, region: np.ndarray) -> None:
        """Make what lies in a region, (height, width) bool, an object of its own."""
        frame = self.session.grid.name(plane)
        self._act(lambda: self.session.split_object(object_id, frame, region), [plane])

    def undo(self) -> None:
        """Take back the last act; a propagation or a search under way is stopped."""
        self.cancel()
        self._step(self.session.undo, "nothing to undo")

    def redo(self) -> None:
        """Do again what was undone."""
        self._step(self.session.redo, "nothing to redo")

    def embed(self, plane: Plane) -> None:
        """A plane came into view: embed it, and its neighbours along the axis of propagation when there is time."""
        name = self.session.grid.name
        self.engine.submit(
            lambda: self.session.embed(name(plane)),
            lambda computed: self.embedded.emit(plane),
            self._fail,
            Urgency.VISIBLE,
            "visible",
        )
        for number, near in enumerate(self._neighbours(plane)):
            self.engine.submit(
                lambda n=near: self.session.embed(name(n)),  # type: ignore[misc]
                failed=self._fail,
                urgency=Urgency.AHEAD,
                key=f"ahead-{number}",
            )

    def propagate(
        self,
        objects: Sequence[int] | None = None,
        ranges: Mapping[str, tuple[int | None, int | None]] | None = None,
        direction: Direction = "both",
        until_lost: bool = False,
        changed_only: bool = False,
    ) -> None:
        """Track objects through the volume; see `Session.propagate`."""
        self._run(
            "propagate",
            lambda: tracking(
                self.session.propagate(
                    objects, ranges=ranges, direction=direction, until_lost=until_lost, changed_only=changed_only
                )
            ),
        )

    def resume(self) -> None:
        """Go on with a propagation that was stopped."""
        self._run("propagate", lambda: tracking(self.session.resume()))

    def automatic(self, search: Search) -> None:
        """Find everything there is on some planes; what is found are objects like any other."""
        self._run("find objects", lambda: searching(self.session, search, self._between))

    def cancel(self) -> None:
        """Stop the propagation or the search under way; what is done stays."""
        if self._job is not None:
            self._job.stop.stop()

    def set_model(self, model: str) -> None:
        """Have another model answer from now on."""
        self._act(lambda: self.session.set_model(model), said=f"the model is now {model}")

    def close(self) -> None:
        """End the thread and close the session; a propagation under way can be resumed when it is opened again."""
        self.cancel()
        self.engine.close()
        self.session.close()

    def _give(self, object_id: int, plane: Plane, prompt: dict[str, Any]) -> None:
        frame = self.session.grid.name(plane)
        if object_id in self.state.objects:
            self.session.add_prompt(object_id, frame, **prompt)
        else:
            self.session.begin_object(frame, object_id=object_id, **prompt)

    def _act(
        self,
        work: Callable[[], Any],
        planes: Sequence[Plane] | None = (),
        done: Callable[[], None] | None = None,
        said: str | None = None,
    ) -> None:
        """Do an act that changes these planes, None for any."""
        self.waiting += 1
        self.said.emit("")  # what was said of an earlier act

        def finished(result: Any) -> None:
            self.waiting -= 1
            if done is not None:
                done()
            if planes is None or planes:
                self.planes_changed.emit(planes)
            self.objects_changed.emit()
            if said is not None:
                self.said.emit(said)

        def failed(error: Exception) -> None:
            self.waiting -= 1
            if done is not None:
                done()
            self._fail(error)
            self.planes_changed.emit(planes)
            self.objects_changed.emit()  # so that a prompt that was refused goes from the canvas

        self.engine.submit(work, finished, failed)

    def _step(self, step: Callable[[], list[Plane] | None], nothing: str) -> None:
        self.waiting += 1

        def finished(planes: list[Plane] | None) -> None:
            self.waiting -= 1
            if planes is None:
                self.said.emit(nothing)
            # of a long act only the last planes are named
            self.planes_changed.emit(None if planes is None or len(planes) >= 100 else planes)
            self.objects_changed.emit()

        def failed(error: Exception) -> None:
            self.waiting -= 1
            self._fail(error)

        self.engine.submit(step, finished, failed)

    def _run(self, task: Task, begin: Callable[[], Iterator[Step]]) -> None:
        if self._job is not None:
            self.said.emit(f"{self._job.task} is under way: stop it first")
            return
        job = self._job = _Job(task)

        def step(now: Step) -> None:
            objects, job.last = now.found != job.last.found, now
            if now.planes is None or now.planes:
                self.planes_changed.emit(now.planes)
            if objects:
                self.objects_changed.emit()
            self._tell(now.done, now.total)

        def over(whole: bool) -> None:
            self._job = None
            self.progressed.emit(None)
            self.objects_changed.emit()
            done, total, found = job.last.done, job.last.total, job.last.found
            if task == "find objects":
                text = f"{found} object{'s' * (found != 1)} found"
                self.said.emit(text if whole else f"stopped: {text}, which stay")
            elif self.resumable:
                self.said.emit(f"stopped after {done} of {total} planes: what is done stays, Resume goes on")

        def failed(error: Exception) -> None:
            self._job = None
            self.progressed.emit(None)
            self.objects_changed.emit()
            self._fail(error)

        self.engine.run(begin, step, over, failed, job.stop)

    def _tell(self, done: float, total: int) -> None:
        if self._job is not None:
            seconds = (time.monotonic() - self._job.started) / done * (total - done) if done else None
            self.progressed.emit(Progress(done, total, seconds, self._job.task))

    def _between(self, done: float, total: int) -> None:
        """In the middle of a step of a search: let acts in, tell how far it is, and end it if that is asked for."""
        self.engine.let_in()
        self.engine.deliver(lambda: self._tell(done, total))
        if self._job is not None and self._job.stop.asked:
            raise Stopped

    def _neighbours(self, plane: Plane) -> list[Plane]:
        axis = self.session.grid.axis
        if axis is None:
            return []
        at = dict(plane)
        order = [d for k in range(1, AHEAD + 1) for d in (k, -k)]
        return [
            tuple((a, i + d if a == axis else i) for a, i in plane)
            for d in order
            if 0 <= at[axis] + d < self.session.grid.length(axis)
        ]

    def _fail(self, error: Exception) -> None:
        if isinstance(error, InputError):
            self.failed.emit(str(error))
        else:
            self.failed.emit(f"{type(error).__name__}: {error}")
