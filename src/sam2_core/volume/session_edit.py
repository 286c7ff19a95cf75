"""Edits of a session's objects by their pixels: painted, split, merged; each becomes a prompt that the model sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.prompts import MAX_ID, Prompt
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_objects import added
from sam2_core.volume.session_plan import mask_rle
from sam2_core.volume.session_prompts import SessionPrompts, replaced
from sam2_core.volume.session_state import PlacedPrompt, Plane, SessionObject


class SessionEdits(SessionPrompts):
    """The part of a session that changes pixels by hand: see `Session`."""

    def paint(self, frame: int | Mapping[str, int], labels: np.ndarray, *, correct: bool = False) -> None:
        """Replace the labels of a frame; locked objects stay as they are.

        Parameters
        ----------
        frame
            As in `add_prompt`.
        labels : ndarray, (height, width) integers
            Object ids; where a locked object is or would be painted, nothing changes.
        correct : bool
            Let the model see it: each object that changes has its new mask as its only prompt on the frame, or none
            if nothing is left of it there; an id that was no object becomes one. Otherwise only pixels change.

        Raises
        ------
        InputError
            If there is no such frame, or the labels are no ids or of another size.
        """
        with self.acting():
            plane = self.plane(frame)
            old = self.read_plane(plane)
            locked = [i.id for i in self.state if i.locked]
            painted = self._ids(labels)
            new = np.where(np.isin(old, locked) | np.isin(painted, locked), old, painted)
            record: dict[str, Any] = {"act": "paint"}
            confidence: dict[int, float | None] = {}
            if correct:
                changed = np.unique([old[old != new], new[old != new]]).tolist()
                if not changed:
                    return
                record["steps"], confidence = self._corrections(plane, old, new, changed)
            self.act({**record, "planes": [self.change(plane, old, new, confidence)]})

    def split_object(self, object_id: int, frame: int | Mapping[str, int], region: np.ndarray) -> int:
        """Make the part of an object that lies in a region of a frame an object of its own.

        Both parts have their masks as prompts on the frame from then on, so that `propagate` tells them apart.

        Parameters
        ----------
        object_id : int
        frame
            As in `add_prompt`.
        region : ndarray, (height, width) bool

        Returns
        -------
        int
            The new object's id; its class is the old one's.

        Raises
        ------
        InputError
            If the object is locked, or lies wholly inside or outside the region.
        """
        with self.acting():
            item = self._unlocked(object_id)
            plane = self.plane(frame)
            region = np.asarray(region, bool)
            if region.shape != self.grid.size:
                raise InputError(f"a region of shape {region.shape} does not fit a frame of {self.grid.size}")
            old = self.read_plane(plane)
            part = (old == object_id) & region
            rest = (old == object_id) & ~region
            if not part.any() or not rest.any():
                how = "wholly" if part.any() else "not"
                raise InputError(f"object {object_id} is {how} inside the region: draw it over a part of the object")
            new_id, serial = self._free_id(), self.state.next_serial
            steps = [
                added(new_id, None, item.class_name, None),
                replaced(object_id, plane, [mask_prompt(serial, plane, rest)]),
                replaced(new_id, plane, [mask_prompt(serial + 1, plane, part)]),
            ]
            change = self.change(plane, old, np.where(part, np.uint32(new_id), old), {object_id: 1.0, new_id: 1.0})
            self.act({"act": "split-object", "steps": steps, "planes": [change]})
            return new_id

    def merge_objects(self, into: int, others: Iterable[int]) -> None:
        """Give the pixels and prompts of other objects to one; the others are gone.

        On a frame where only one of them is, its prompts are taken over as they are. Where several are, and one has
        prompts, the prompt is the mask of all together: prompts for a part would tell the model to leave the rest.

        Raises
        ------
        InputError
            If there is no other object, or one of them does not exist or is locked.
        """
        with self.acting():
            target = self._unlocked(into)
            gone = [self._unlocked(i) for i in dict.fromkeys(others)]
            if not gone or target in gone:
                raise InputError(f"object {into} needs others to merge with: choose at least one, and not itself")
            merged = [target, *gone]
            steps: list[dict[str, Any]] = [{"act": "delete-object", "id": item.id} for item in gone]
            serial = self.state.next_serial
            confidence = self._merged_confidence(merged)
            for plane in dict.fromkeys(plane for item in merged for plane in item.planes()):
                placed, mask = self._merged_prompts(merged, plane)
                if mask is not None:
                    placed = [mask_prompt(serial, plane, mask)]
                    serial += 1
                    confidence.setdefault(plane, {})[into] = 1.0
                steps.append(replaced(into, plane, placed))
            planes = [self.change(plane, confidence=known) for plane, known in confidence.items()]
            record = {"act": "merge-objects", "into": into, "others": [i.id for i in gone], "steps": steps}
            self.act({**record, "planes": planes})
            self._relabel(record)

    def _ids(self, labels: np.ndarray) -> np.ndarray:
        """Labels from outside as uint32, checked."""
        if labels.shape != self.grid.size:
            raise InputError(f"labels of shape {labels.shape} do not fit a frame of {self.grid.size}")
        if labels.dtype.kind not in "bui" or int(labels.min()) < 0 or int(labels.max()) > MAX_ID:
            raise InputError(f"labels of {labels.dtype} are no object ids: give whole numbers from 0 to {MAX_ID}")
        return labels.astype(np.uint32)

    def _corrections(
        self, plane: Plane, old: np.ndarray, new: np.ndarray, changed: Iterable[int]
    ) -> tuple[list[dict[str, Any]], dict[int, float | None]]:
        """What painting does to the objects that changed, as steps of an act, and the confidence in them after it."""
        steps: list[dict[str, Any]] = []
        confidence: dict[int, float | None] = {}
        serial = self.state.next_serial
        for object_id in changed:
            mask = new == object_id
            item = self.state.objects.get(object_id)
            if object_id == 0 or (item is None and not mask.any()):
                continue
            if item is None:
                steps.append(added(object_id, None, None, None))
                item = SessionObject(object_id)
            there = item.on(plane)
            if mask.any():
                base = there[0].base if there else mask_rle(old, object_id)
                steps.append(replaced(object_id, plane, [mask_prompt(serial, plane, mask, base)]))
                serial += 1
            elif there:
                steps.append(replaced(object_id, plane, []))
            confidence[object_id] = 1.0 if mask.any() else None
        return steps, confidence

    def _merged_prompts(
        self, merged: list[SessionObject], plane: Plane
    ) -> tuple[list[PlacedPrompt], np.ndarray | None]:
        """The prompts of merged objects on a plane, where one of them is alone there, else the mask of all."""
        labels = self.read_plane(plane)
        here = [item for item in merged if item.on(plane) or (labels == item.id).any()]
        if len(here) == 1:
            return here[0].on(plane), None
        mask = np.isin(labels, [item.id for item in here])
        for item in here:
            if not (labels == item.id).any():  # its prompts wait for a propagation
                mask |= self._answer(item.id, plane, item.on(plane))[0].mask(self.grid.size)
        return ([], mask) if mask.any() else (here[0].on(plane), None)

    def _merged_confidence(self, merged: list[SessionObject]) -> dict[Plane, dict[int, float | None]]:
        """By plane, the least confidence for the first of merged objects, and none for the others."""
        target, *gone = (item.id for item in merged)
        confidence: dict[Plane, dict[int, float | None]] = {}
        for item in merged:
            for plane, value in self.history.confidence_in(item.id).items():
                here = confidence.setdefault(plane, {target: value, **dict.fromkeys(gone)})
                here[target] = min(value, here[target] or 0.0)
        return confidence


def mask_prompt(serial: int, plane: Plane, mask: np.ndarray, base: Rle | None = None) -> PlacedPrompt:
    """A (height, width) bool mask as a prompt on a plane."""
    return PlacedPrompt(serial, plane, Prompt(frame=dict(plane) or 0, mask=Rle.encode(mask)), base)
