"""The history of a session: its state after each act, and what undo, redo and recovery have to do to the labels.

It also keeps how sure the model is of each object on each plane, which comes and goes with the acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.masks import Region
from sam2_core.volume import journal as journals
from sam2_core.volume.session_deltas import Delta, apply_delta, delta_region
from sam2_core.volume.session_state import Plane, State, place, reduce

LONG = ("run", "delete-object", "merge-objects")
"""Acts that write plane after plane and end with a record of their own."""

Confidence = Mapping[int, tuple[float | None, float | None]]
"""By object id, the model's confidence before and after; None where there is none."""


@dataclass
class Entry:
    """One act that can be undone: the states around it, and its records' place in the journal in bytes."""

    kind: str
    before: State
    after: State
    start: int
    end: int
    open: bool = False


@dataclass(frozen=True)
class Change:
    """What an act does on one plane: to the labels, and to the confidence (before, after) in objects."""

    plane: Plane
    delta: Delta
    confidence: Confidence = field(default_factory=dict)


@dataclass(frozen=True)
class Effect:
    """Changes of planes, or all those of an entry, made or taken back."""

    changes: tuple[Change, ...] = ()
    entry: Entry | None = None
    back: bool = False


@dataclass
class History:
    """Acts done and undone, fed with the journal's records in order.

    Memory grows with the acts, not with the planes that they wrote, but for one number an object and plane:
    `confidence`.
    """

    state: State = field(default_factory=State)
    done: list[Entry] = field(default_factory=list)
    undone: list[Entry] = field(default_factory=list)
    confidence: dict[Plane, dict[int, float]] = field(default_factory=dict)

    @property
    def unfinished(self) -> Entry | None:
        """The last act, if it is a long one that has not ended."""
        return self.done[-1] if self.done and self.done[-1].open else None

    def take(self, record: Mapping[str, Any], start: int, end: int) -> Effect | None:
        """Take in a record that lies at these bytes of the journal; what it does to the labels."""
        kind = record["act"]
        if kind == "undo":
            entry = self.done.pop()
            entry.open = False
            self.undone.append(entry)
            self.state = entry.before
            return Effect(entry=entry, back=True)
        if kind == "redo":
            entry = self.undone.pop()
            self.done.append(entry)
            self.state = entry.after
            return Effect(entry=entry)
        if kind in ("leg", "plane", "end", "stop"):
            entry = self.done[-1]
            entry.end = end
            if kind == "end":
                entry.open = False
                entry.after = self.state = reduce(self.state, record)
            return self._made(_change(record)) if kind == "plane" else None
        if kind == "flushed":
            return None
        if self.unfinished:
            self.done[-1].open = False
        before, self.state = self.state, reduce(self.state, record)
        self.done.append(Entry(kind, before, self.state, start, end, kind in LONG))
        self.undone.clear()
        return self._made(*(_change(p) for p in record.get("planes", ())))

    def confidence_in(self, object_id: int) -> dict[Plane, float]:
        """The model's confidence in an object by plane, in the order of the planes."""
        known = [(plane, here.get(object_id)) for plane, here in list(self.confidence.items())]
        return dict(sorted((plane, value) for plane, value in known if value is not None))

    def note(self, change: Change, back: bool = False) -> None:
        """Take up a change of confidence, or take it back."""
        here = self.confidence.setdefault(change.plane, {})
        for object_id, (before, after) in change.confidence.items():
            value = before if back else after
            if value is None:
                here.pop(object_id, None)
            else:
                here[object_id] = value

    def _made(self, *changes: Change) -> Effect:
        for change in changes:
            self.note(change)
        return Effect(changes)


def entry_changes(path: Path, entry: Entry, back: bool = False) -> Iterator[Change]:
    """What an act changed, in the order in which it did, or backward."""
    places = []
    previous = entry.start
    for end, record in journals.read(path, entry.start, entry.end):
        if record["act"] == "plane" or "planes" in record:
            places.append((previous, end))
        previous = end
    for start, end in reversed(places) if back else places:
        _, record = next(journals.read(path, start, end))
        changes = [_change(p) for p in record.get("planes", [record])]
        yield from reversed(changes) if back else changes


Write = Callable[[Plane, np.ndarray, Region], None]
Read = Callable[[Plane], np.ndarray]


def apply_effect(history: History, path: Path, effect: Effect | None, read: Read, write: Write) -> list[Plane]:
    """Make an effect in the labels; repeating it does no harm.

    Returns
    -------
    list of Plane
        The planes that changed, at most the last hundred: enough to redraw what is shown.
    """
    touched: dict[Plane, None] = {}
    for change in _changes(history, path, effect):
        if change.delta:
            labels = read(change.plane).copy()
            apply_delta(labels, change.delta, effect is not None and effect.back)
            write(change.plane, labels, delta_region(change.delta))
            touched[change.plane] = None
            if len(touched) > 100:
                del touched[next(iter(touched))]
    return list(touched)


def restore(path: Path, read: Read, write: Write, everything: bool = False) -> History:
    """Rebuild a history from its journal, and the labels with it.

    Parameters
    ----------
    path : Path
        The journal.
    read, write : callable
        Of a plane of labels.
    everything : bool
        Replay all the labels' changes, into empty labels; else only those that a crash may have lost.

    Raises
    ------
    InputError
        If the journal is damaged.
    """
    safe = 0 if everything else _last_flush(path)
    history = History()
    start = 0
    for end, record in journals.read(path):
        effect = history.take(record, start, end)
        if end > safe:
            apply_effect(history, path, effect, read, write)
        else:  # the labels are on disk, what is known of them is not
            for _ in _changes(history, path, effect):
                pass
        start = end
    return history


def _last_flush(path: Path) -> int:
    """Where the last record ends that says that all labels before it were written."""
    return max((end for end, record in journals.read(path) if record["act"] == "flushed"), default=0)


def _changes(history: History, path: Path, effect: Effect | None) -> Iterator[Change]:
    """The changes of an effect; of those that an undo or redo reads from the journal the history takes note."""
    if effect is None:
        return
    if effect.entry is None:
        yield from effect.changes
        return
    for change in entry_changes(path, effect.entry, effect.back):
        history.note(change, effect.back)
        yield change


def _change(record: Mapping[str, Any]) -> Change:
    confidence = {int(i): (before, after) for i, (before, after) in record.get("confidence", {}).items()}
    return Change(place(record["at"]), record["delta"], confidence)


def plane_record(plane: Plane, delta: Delta, confidence: Confidence | None = None) -> dict[str, Any]:
    """A plane's change as the journal holds it."""
    known = {"confidence": {str(i): list(c) for i, c in confidence.items()}} if confidence else {}
    return {"at": dict(plane), "delta": delta, **known}
