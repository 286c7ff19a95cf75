"""Snapshots: named lists of item versions that never change, from which a training run can be repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sam2_core.errors import InputError
from sam2_core.labelstore.publish import incoming, publish
from sam2_core.labelstore.records import check_name, now
from sam2_core.labelstore.splits import Part

_FOLDER = "snapshots"
_FILE = "snapshot.json"


class SnapshotEntry(BaseModel):
    """One version of one item, known by its digest, and the part it lies in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item: str
    version: int
    digest: str
    part: Part | None = None


class Snapshot(BaseModel):
    """A named list of item versions; `digest` depends on the list alone, not on the name or the time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    created: datetime
    digest: str
    entries: tuple[SnapshotEntry, ...]


def write_snapshot(store: Path, name: str, entries: Iterable[SnapshotEntry]) -> Snapshot:
    """Keep a snapshot.

    Raises
    ------
    InputError
        The name is taken or cannot be one, or there are no entries.
    """
    check_name(name, "a snapshot")
    ordered = tuple(sorted(entries, key=lambda e: (e.item, e.version)))
    if not ordered:
        raise InputError(f"{store} holds no items: there is nothing to take a snapshot of")
    snapshot = Snapshot(name=name, created=now(), digest=_digest(ordered), entries=ordered)
    with incoming(store) as folder:
        (folder / _FILE).write_text(snapshot.model_dump_json(indent=1))
        if not publish(folder, store / _FOLDER / name):
            raise InputError(f"there is a snapshot {name} already, and snapshots do not change: choose another name")
    return snapshot


def read_snapshot(store: Path, name: str) -> Snapshot:
    """The snapshot of that name.

    Raises
    ------
    InputError
        There is none, or it was changed.
    """
    path = store / _FOLDER / check_name(name, "a snapshot") / _FILE
    try:
        snapshot = Snapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        there = ", ".join(snapshot_names(store)) or "none"
        raise InputError(f"{store} has no snapshot {name} (there are: {there})") from None
    except ValidationError as error:
        raise InputError(f"{path} is no snapshot: {error.errors()[0]['msg']}") from None
    if _digest(snapshot.entries) != snapshot.digest:
        raise InputError(f"{path} was changed after it was taken: its entries do not give its digest")
    return snapshot


def snapshot_names(store: Path) -> list[str]:
    """Names of all snapshots, in alphabetical order."""
    return sorted(path.parent.name for path in (store / _FOLDER).glob(f"*/{_FILE}"))


def _digest(entries: tuple[SnapshotEntry, ...]) -> str:
    return hashlib.sha256(json.dumps([e.model_dump() for e in entries], sort_keys=True).encode()).hexdigest()
