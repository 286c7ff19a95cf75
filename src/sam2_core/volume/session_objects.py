"""The objects of a session: added, renamed, locked, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume import journal as journals
from sam2_core.volume.prompts import MAX_ID
from sam2_core.volume.session_state import EDITABLE, Plane, SessionObject
from sam2_core.volume.session_store import SessionStore


class SessionObjects(SessionStore):
    """The part of a session that keeps its objects: see `Session`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.finish()

    @property
    def objects(self) -> list[SessionObject]:
        """The objects, in the order in which they were added."""
        return list(self.state)

    def add_object(
        self,
        object_id: int | None = None,
        *,
        name: str | None = None,
        class_name: str | None = None,
        colour: str | None = None,
    ) -> int:
        """Add an object.

        Parameters
        ----------
        object_id : int, optional
            Its number in the labels, from 1; by default the next free one.

        Returns
        -------
        int
            The object's id.

        Raises
        ------
        InputError
            If the id is taken or out of range.
        """
        with self.acting():
            chosen = self._free_id(object_id)
            self.act(added(chosen, name, class_name, colour))
            return chosen

    def edit_object(self, object_id: int, **changes: Any) -> None:
        """Change `name`, `class_name`, `colour`, `locked` or `visible` of an object.

        Raises
        ------
        InputError
            If there is no such object or no such property.
        """
        with self.acting():
            self.state[object_id]
            if wrong := [k for k in changes if k not in EDITABLE]:
                raise InputError(f"an object has no {wrong[0]}: change {', '.join(EDITABLE)}")
            self.act({"act": "edit-object", "id": object_id, **changes})

    def delete_object(self, object_id: int) -> None:
        """Remove an object, its prompts and its pixels.

        Raises
        ------
        InputError
            If there is no such object, or it is locked.
        """
        with self.acting():
            self._unlocked(object_id)
            known = self.history.confidence_in(object_id)
            forgotten = [self.change(plane, confidence={object_id: None}) for plane in known]
            record = {"act": "delete-object", "id": object_id, "planes": forgotten}
            self.act(record)
            self._relabel(record)

    def _unlocked(self, object_id: int) -> SessionObject:
        item = self.state[object_id]
        if item.locked:
            raise InputError(f"object {object_id} is locked: unlock it to change it")
        return item

    def _free_id(self, wanted: int | None = None) -> int:
        chosen = max(self.state.objects, default=0) + 1 if wanted is None else int(wanted)
        if not 1 <= chosen <= MAX_ID:
            raise InputError(f"{chosen} is no object id: use 1 to {MAX_ID} (0 is the background)")
        if chosen in self.state.objects:
            raise InputError(f"there is an object {chosen} already: choose another id")
        return chosen

    def finish(self) -> None:
        """Do to its end what a crash or the disk broke off."""
        super().finish()
        unfinished = self.history.unfinished
        if unfinished and unfinished.kind in ("delete-object", "merge-objects"):
            _, record = next(journals.read(self.journal.path, unfinished.start, unfinished.end))
            self._relabel(record)

    def _relabel(self, record: Mapping[str, Any]) -> None:
        """Clear the pixels of an object, or give those of several to one, plane by plane, to end the act under way."""
        old_ids = record.get("others", [record.get("id")])
        new_id = np.uint32(record.get("into", 0))
        axes = self.labels.axes
        visited: set[Plane] = set()
        for region in self.labels.stored_regions():
            place = dict(zip(axes, region))
            for index in np.ndindex(*(place[a].stop - place[a].start for a, _ in self.grid.axes)):
                plane = tuple((a, place[a].start + k) for (a, _), k in zip(self.grid.axes, index))
                if plane in visited:  # chunks side by side
                    continue
                visited.add(plane)
                old = self.read_plane(plane)
                if (there := np.isin(old, old_ids)).any():
                    new = np.where(there, new_id, old)
                    self.record_plane({"act": "plane", **self.change(plane, old, new)}, plane, new)
        self.record({"act": "end"})
        self.flushed()


def added(object_id: int, name: str | None, class_name: str | None, colour: str | None) -> dict[str, Any]:
    """The record of an object that is added."""
    given = {"name": name, "class_name": class_name, "colour": colour}
    return {"act": "add-object", "id": object_id, **{k: v for k, v in given.items() if v is not None}}
