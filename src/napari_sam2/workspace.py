"""A session at work: what the window asks of it is done in a thread of its own, and what comes of it is told.

Nothing here knows Qt or napari; the window calls methods, which return at once, and listens to the signals.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from psygnal import Signal

from napari_sam2.engine import Engine, Stop, Urgency
from napari_sam2.failures import NO_MEMORY, is_out_of_gpu_memory, sentence
from napari_sam2.prompt_rows import Change, Row, changes, prompt_of
from napari_sam2.runs import Search, Step, Stopped, searching, tracking
from sam2_core.volume.prompts import Prompt
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
    `busy_changed`, `embedded` (a plane), `failed`, `said` and `out_of_memory` (a sentence; see `continue_on_cpu`).

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
    out_of_memory = Signal(str)

    def __init__(self, session: Session, engine: Engine) -> None:
        self.session = session
        self.engine = engine
        self.engine.busy = self.busy_changed.emit
        self.waiting = 0
        self._job: _Job | None = None
        self._taken: set[int] = set()
        self._numbering = threading.Lock()
        self._renumbered: dict[int, int] = {}  # the serials that prompts had before they were changed, and have now
        self._again: list[Callable[[], None]] = []  # what memory did not suffice for
        self._behind = False  # whether labels are still to be written that the disk did not take

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

    def next_id(self, above: int = 0) -> int:
        """An id for a new object, which no other gets, for any thread."""
        with self._numbering:
            chosen = max([above, *self.state.objects, *self._taken]) + 1
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
            grouped = [(plane, list(on_it)) for plane, on_it in itertools.groupby(places, key=lambda place: place[0])]
            lines = self.session.places(plane for plane, _ in grouped)
            for (source, index), (_, on_it) in zip(lines, grouped):
                pixels = source.raw(index)
                values += [float(pixels[round(y), round(x), 0]) for _, x, y in on_it]
            return places[int(np.argmax(values))]

        self.engine.submit(work, lambda place: found(*place), self._fail)

    def add_mask(self, object_id: int, plane: Plane, mask: np.ndarray) -> None:
        """Give an object its mask, (height, width) bool, on a plane; the object is new if there is none of that id."""
        self._act(lambda: self._give(object_id, plane, {"mask": mask}), [plane])

    def edit(self, drawn: State, rows: Sequence[Row]) -> None:
        """Take over what was moved or deleted among the prompts that are shown, after those of `drawn` were."""
        for change in changes(drawn, rows, self.session.grid.name):
            self._act(lambda c=change: self._edit(c), [change.plane])  # type: ignore[misc]

    def paint(self, plane: Plane, labels: np.ndarray, where: np.ndarray, done: Callable[[], None]) -> None:
        """Take labels painted on a plane as a correction, only `where` they were painted: the rest may have changed.

        `done` is called at the end, whatever came of it.
        """
        frame = self.session.grid.name(plane)

        def work() -> None:
            self.session.paint(frame, np.where(where, labels, self.session.read_labels(frame)), correct=True)

        self._act(work, [plane], done)

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
            lambda error: self._fail(error, lambda: self.embed(plane)),
            Urgency.VISIBLE,
            "visible",
        )
        for number, near in enumerate(self._neighbours(plane)):
            self.engine.submit(
                lambda n=near: self.session.embed(name(n)),  # type: ignore[misc]
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
        self._run("find objects", lambda: searching(self.session, search, self._between, self.next_id))

    def cancel(self) -> None:
        """Stop the propagation or the search under way; what is done stays."""
        if self._job is not None:
            self._job.stop.stop()

    def set_model(self, model: str) -> None:
        """Have another model answer from now on."""
        self._act(lambda: self.session.set_model(model), said=f"the model is now {model}")

    def continue_on_cpu(self) -> None:
        """Compute on the CPU from now on, and do again what a GPU's memory did not suffice for."""
        again, self._again = self._again, []
        self._act(lambda: self.session.set_device("cpu"), said="Computing on the CPU from now on.")
        for do in again:
            do()

    def close(self, timeout: float = 60.0) -> None:
        """Close the session and end the thread, after at most `timeout` seconds or later, when it is done.

        A propagation under way can be resumed when the session is opened again.
        """
        self.cancel()
        self.engine.close(timeout, self.session.close)

    def _edit(self, change: Change) -> None:
        """Change prompts that may have been changed, or taken away, since they were drawn."""
        before = self.state[change.object_id].on(change.plane)
        present = {placed.serial for placed in before}
        wanted: dict[int, Prompt | None] = {placed.serial: placed.prompt for placed in before}
        for serial, prompt in change.prompts.items():
            while serial not in present and serial in self._renumbered:
                serial = self._renumbered[serial]
            if serial in present:
                wanted[serial] = prompt
        after = {serial: prompt for serial, prompt in wanted.items() if prompt is not None}
        if list(after.values()) != [placed.prompt for placed in before]:
            self.session.replace_prompts(change.object_id, self.session.grid.name(change.plane), list(after.values()))
            now = self.state[change.object_id].on(change.plane)
            for serial in wanted.keys() - after.keys():
                self._renumbered.pop(serial, None)
            self._renumbered.update((old, new.serial) for old, new in zip(after, now) if old != new.serial)

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
            self._again.clear()
            if done is not None:
                done()
            if planes is None or planes or self._behind:
                self.planes_changed.emit(None if self._behind else planes)
            self._behind = False
            self.objects_changed.emit()
            if said is not None:
                self.said.emit(said)

        def failed(error: Exception) -> None:
            self.waiting -= 1
            if done is not None:
                done()
            self._behind = True
            self._fail(error, lambda: self._act(work, planes, done, said))
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
            self.planes_changed.emit(None)
            self.objects_changed.emit()

        def work() -> list[Plane] | None:
            self._renumbered.clear()  # numbers come again
            return step()

        self.engine.submit(work, finished, failed)

    def _run(self, task: Task, begin: Callable[[], Iterator[Step]]) -> None:
        if self._job is not None:
            self.said.emit(f"{self._job.task} is under way: stop it first")
            return
        job = self._job = _Job(task)
        self.said.emit("")

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
            self._fail(error, self.resume if self.resumable else lambda: self._run(task, begin))

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

    def _fail(self, error: Exception, again: Callable[[], None] | None = None) -> None:
        if is_out_of_gpu_memory(error) and self.session.device != "cpu":
            if again is not None:
                self._again.append(again)
            self.out_of_memory.emit(NO_MEMORY)
        else:
            self.failed.emit(sentence(error))
