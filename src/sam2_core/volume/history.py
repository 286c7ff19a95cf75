"""The history of a session: its state after each act, and what undo, redo and recovery have to do to the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.volume import journal as journals
from sam2_core.volume.session_deltas import Delta, apply_delta
from sam2_core.volume.session_state import Plane, State, reduce

LONG = ("run", "delete-object")
"""Acts that write plane after plane and end with a record of their own."""


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
class Effect:
    """A change of labels: planes and deltas, or all those of an entry, made or taken back."""

    planes: tuple[tuple[Plane, Delta], ...] = ()
    entry: Entry | None = None
    back: bool = False


@dataclass
class History:
    """Acts done and undone, fed with the journal's records in order.

    Memory grows with the acts, not with the planes that they wrote.
    """

    state: State = field(default_factory=State)
    done: list[Entry] = field(default_factory=list)
    undone: list[Entry] = field(default_factory=list)

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
            return Effect(planes=(_plane(record),)) if kind == "plane" else None
        if kind == "flushed":
            return None
        if self.unfinished:
            self.done[-1].open = False
        before, self.state = self.state, reduce(self.state, record)
        self.done.append(Entry(kind, before, self.state, start, end, kind in LONG))
        self.undone.clear()
        return Effect(planes=tuple(_plane(p) for p in record.get("planes", ())))


def entry_planes(path: Path, entry: Entry, back: bool = False) -> Iterator[tuple[Plane, Delta]]:
    """The planes that an act changed and how, in the order in which it did, or backward."""
    places = []
    previous = entry.start
    for end, record in journals.read(path, entry.start, entry.end):
        if record["act"] == "plane" or "planes" in record:
            places.append((previous, end))
        previous = end
    for start, end in reversed(places) if back else places:
        _, record = next(journals.read(path, start, end))
        planes = [_plane(p) for p in record.get("planes", [record])]
        yield from reversed(planes) if back else planes


Write = Callable[[Plane, np.ndarray], None]
Read = Callable[[Plane], np.ndarray]


def apply_effect(path: Path, effect: Effect | None, read: Read, write: Write) -> list[Plane]:
    """Make an effect in the labels; repeating it does no harm.

    Returns
    -------
    list of Plane
        The planes that changed, at most the last hundred: enough to redraw what is shown.
    """
    if effect is None:
        return []
    touched: dict[Plane, None] = {}
    planes = effect.planes if effect.entry is None else entry_planes(path, effect.entry, effect.back)
    for plane, delta in planes:
        if delta:
            labels = read(plane)
            apply_delta(labels, delta, effect.back)
            write(plane, labels)
            touched[plane] = None
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
            apply_effect(path, effect, read, write)
        start = end
    return history


def _last_flush(path: Path) -> int:
    """Where the last record ends that says that all labels before it were written."""
    return max((end for end, record in journals.read(path) if record["act"] == "flushed"), default=0)


def _plane(record: Mapping[str, Any]) -> tuple[Plane, Delta]:
    return tuple((a, int(i)) for a, i in record["at"].items()), record["delta"]


def plane_record(plane: Plane, delta: Delta) -> dict[str, Any]:
    """A plane's change as the journal holds it."""
    return {"at": dict(plane), "delta": delta}
