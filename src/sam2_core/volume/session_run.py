"""One propagation of a session: tracks leg by leg, journals each plane before it is written, and can be resumed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume import journal as journals
from sam2_core.volume.history import Entry, plane_record
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_deltas import encode_delta
from sam2_core.volume.session_plan import Leg, Request, Stage, make_plan, mask_rle
from sam2_core.volume.session_state import Plane
from sam2_core.volume.session_track import compose, track

if TYPE_CHECKING:
    from sam2_core.volume.session import Session

TRACK = "track"
"""Folder of a session for the tracker's memory of the leg under way."""

FLUSH_EVERY = 16
"""Planes between two marks in the journal that all labels before are written."""

Result = tuple[int | dict[str, int], dict[int, np.ndarray]]
"""A frame, as a prompts file names it, and the masks on it by object id, (height, width) bool."""


@dataclass
class Progress:
    """How far a run has come: the stage under way, what it started from, and how many of its planes are done."""

    stage: int = 0
    masks: dict[int, dict[int, Rle]] | None = None
    planes: int = 0

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
                progress.planes += 1
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
        self._results = self._run()

    @property
    def length(self) -> int:
        """Number of results to come, if no object vanishes on the way."""
        first, done = (self.progress.stage, self.progress.planes) if self.progress else (0, 0)
        return sum(stage.length() for stage in self.stages[first:]) - done

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
            if self.entry is None:
                session.act({"act": "run", "request": self.request.to_json()})
                self.entry = session.history.done[-1]
        try:
            for number, stage in enumerate(self.stages):
                if number >= progress.stage:
                    resumed = progress if self.progress and number == progress.stage else None
                    yield from self._stage(number, stage, resumed)
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
        """Whether no other act has come in between; it would have ended this run."""
        return not self.session.closed and self.session.history.unfinished is self.entry

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
        done = resumed.planes if resumed else 0
        with contextlib.closing(track(session.predictor, source, leg, session.directory / TRACK, done)) as results:
            for count in range(done, len(leg.frames())):
                with session.lock:
                    if not self._current():
                        return
                    frame, logits = next(results)
                    plane = leg.plane(frame, session.grid)
                    masks = self._write(plane, logits)
                    if count % FLUSH_EVERY == 0:
                        session.flushed()
                yield session.grid.name(plane), masks

    def _mask(self, stage: Stage, object_id: int, frame: int) -> Rle | None:
        leg = Leg(stage.axis, stage.fixed, stage.reverse, (), {})
        return mask_rle(self.session.read_plane(leg.plane(frame, self.session.grid)), object_id)

    def _write(self, plane: Plane, logits: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        session = self.session
        old = session.read_plane(plane)
        new = compose(old, logits, [item.id for item in session.state if item.locked])
        session.record({"act": "plane", **plane_record(plane, encode_delta(old, new))})
        session.write_plane(plane, new)
        return {i: new == i for i in logits}
