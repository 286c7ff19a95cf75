"""One propagation of a session: tracks leg by leg, journals each plane before it is written, and can be resumed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume import journal as journals
from sam2_core.volume.history import Entry
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_plan import Leg, Request, Stage, make_plan, mask_rle
from sam2_core.volume.session_state import Plane
from sam2_core.volume.session_store import TRACK
from sam2_core.volume.session_track import Tracked, compose, track

if TYPE_CHECKING:
    from sam2_core.volume.session import Session

FLUSH_EVERY = 16
"""Planes between two marks in the journal that all labels before are written."""

Result = tuple[int | dict[str, int], dict[int, np.ndarray]]
"""A frame, as a prompts file names it, and the masks on it by object id, (height, width) bool."""


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    stage : int
        The stage under way.
    masks : dict, optional
        What it started from.
    empty : list of list of int
        By plane that is done in it, the objects that were not found; see `session_lost`.
    """

    stage: int = 0
    masks: dict[int, dict[int, Rle]] | None = None
    empty: list[list[int]] = field(default_factory=list)

    @property
    def planes(self) -> int:
        """How many planes of the stage are done."""
        return len(self.empty)

    @classmethod
    def of(cls, session: Session, entry: Entry) -> tuple[Request, Progress]:
        """Read from the journal what an unfinished run was to do, and its progress."""
        progress = cls()
        request = None
        for _, record in journals.read(session.journal.path, entry.start, entry.end):
            if record["act"] == "run":
                request = Request.from_json(record["request"])
            elif record["act"] == "leg":
                masks = {
                    int(i): {int(f): Rle.model_validate(m) for f, m in frames.items()}
                    for i, frames in record["masks"].items()
                }
                progress = cls(record["stage"], masks)
            elif record["act"] == "plane":
                progress.empty.append(record.get("empty", []))
        assert request is not None
        return request, progress


class Run:
    """A propagation under way; iterate over it for the results.

    Parameters
    ----------
    session : Session
    request : Request
    progress : Progress, optional
        Of a run to go on with; a new one otherwise.

    Attributes
    ----------
    length : int
        How many results this run gives in all, at most: it shrinks when objects vanish or are lost.
    done : int
        How many of them are there.

    Raises
    ------
    InputError
        If an object that is to be propagated has nothing to start from.
    """

    def __init__(self, session: Session, request: Request, progress: Progress | None = None) -> None:
        self.session = session
        self.request = request
        self.stages = make_plan(request, session.state, session.grid)
        self.progress = progress
        self.entry: Entry | None = session.history.unfinished if progress else None
        self.done = 0
        self._lengths = [stage.length() for stage in self.stages]
        first, before = (progress.stage, progress.planes) if progress else (0, 0)
        self.length = sum(self._lengths[first:]) - before
        self._results = self._run()

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Result:
        return next(self._results)

    def close(self) -> None:
        """Stop; `Session.resume` goes on."""
        self._results.close()

    def _run(self) -> Generator[Result]:
        session = self.session
        progress = self.progress or Progress()
        with session.lock:
            self._settings = session.settings
            if self.entry is None:
                session.act({"act": "run", "request": self.request.to_json()})
                self.entry = session.history.done[-1]
        try:
            for number, stage in enumerate(self.stages):
                if number >= progress.stage:
                    resumed = progress if self.progress and number == progress.stage else None
                    yield from self._stage(number, stage, resumed)
                    if self._current():
                        self.length = self.done + sum(self._lengths[number + 1 :])
            with session.lock:
                if self._current():
                    ranges = {a: list(r) for a, r in self.request.ranges.items()}
                    session.act({"act": "end", "objects": list(self.request.objects), "ranges": ranges})
                    session.flushed()
                    shutil.rmtree(session.directory / TRACK, ignore_errors=True)
        finally:
            with session.lock:
                if self._current():
                    with contextlib.suppress(InputError):  # a full disk loses no plane: these are mere marks
                        session.act({"act": "stop"})
                        session.flushed()

    def _current(self) -> bool:
        """Whether no other act and no other model has come in between; it would have ended this run."""
        session = self.session
        return not session.closed and session.history.unfinished is self.entry and session.settings is self._settings

    def _stage(self, number: int, stage: Stage, resumed: Progress | None) -> Generator[Result]:
        session = self.session
        with session.lock:
            if not self._current():
                return
            known = resumed.masks if resumed else None
            leg = stage.leg(lambda i, f: self._mask(stage, i, f) if known is None else known.get(i, {}).get(f))
            if leg is None:
                return
            if known is None:
                session.act({"act": "leg", "stage": number, **leg.to_json()})
            source = session.source(leg.fixed, leg.axis)
            predictor = session.predictor
            embeddings = session.embeddings.of(source, predictor, read_only=True)
        done, empty = (resumed.planes, resumed.empty) if resumed else (0, [])
        until_lost = self.request.until_lost
        tracked = track(predictor, source, leg, session.directory / TRACK, done, until_lost, empty, embeddings)
        with contextlib.closing(tracked):
            while True:
                with session.lock:
                    if not self._current():
                        return
                    try:
                        result = next(tracked)
                    except StopIteration:
                        return
                    if result is None:
                        continue
                    plane = leg.plane(result.frame, session.grid)
                    masks = self._write(plane, result)
                    if self.done % FLUSH_EVERY == 0:
                        session.flushed()
                    self.done += 1
                yield session.grid.name(plane), masks

    def _mask(self, stage: Stage, object_id: int, frame: int) -> Rle | None:
        leg = Leg(stage.axis, stage.fixed, stage.reverse, (), {})
        return mask_rle(self.session.read_plane(leg.plane(frame, self.session.grid)), object_id)

    def _write(self, plane: Plane, result: Tracked) -> dict[int, np.ndarray]:
        session = self.session
        old = session.read_plane(plane)
        new, region = compose(old, result.patches, [item.id for item in session.state if item.locked])
        empty = {"empty": list(result.empty)} if self.request.until_lost and result.empty else {}
        record = {"act": "plane", **session.change(plane, old, new, result.confidence, region), **empty}
        session.record_plane(record, plane, new)
        return {i: new == i for i in result.patches}
