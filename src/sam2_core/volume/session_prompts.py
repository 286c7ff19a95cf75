"""The prompts of a session: given, replaced, taken back, and answered at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np

from sam2_core.errors import InputError
from sam2_core.predict.patches import Patch
from sam2_core.volume.prompts import LabelledObject, Prompt, describe, make_prompt
from sam2_core.volume.session_objects import SessionObjects, added
from sam2_core.volume.session_plan import mask_rle
from sam2_core.volume.session_state import PlacedPrompt, Plane, SessionObject, check_prompts
from sam2_core.volume.session_track import compose


class PromptFields(TypedDict, total=False):
    """What a prompt is made of; see `SessionPrompts.add_prompt`."""

    points: Any
    labels: Any
    box: Any
    scribbles: Any
    mask: np.ndarray | None
    lasso: Any


class SessionPrompts(SessionObjects):
    """The part of a session that takes prompts: see `Session`."""

    def begin_object(
        self,
        frame: int | Mapping[str, int],
        *,
        object_id: int | None = None,
        name: str | None = None,
        class_name: str | None = None,
        colour: str | None = None,
        **prompt: Unpack[PromptFields],
    ) -> tuple[int, np.ndarray]:
        """Add an object by its first prompt, in one act.

        Parameters
        ----------
        frame
            As in `add_prompt`.
        object_id, name, class_name, colour
            As in `add_object`.
        **prompt
            `points` and `labels`, `box`, `scribbles`, `mask` or `lasso`, as in `add_prompt`.

        Returns
        -------
        object_id : int
        mask : ndarray, (height, width) bool
            The object's mask on the frame.

        Raises
        ------
        InputError
            If the id is taken or out of range, or the prompt is incomplete or lies outside the volume; no object is
            added then.
        """
        with self.acting():
            item = SessionObject(self._free_id(object_id))
            first = make_prompt(item.id, frame, **prompt)
            placed = PlacedPrompt(self.state.next_serial, self._checked(item.id, 0, first), first)
            patch, confidence = self._answer(item.id, placed.plane, [placed])
            steps = [
                added(item.id, name, class_name, colour),
                {"act": "prompt", "id": item.id, **placed.to_json()},
            ]
            change = self._answered(placed.plane, item.id, patch, confidence)
            self.act({"act": "begin-object", "steps": steps, "planes": [change]})
            return item.id, self.read_plane(placed.plane) == item.id

    def add_prompt(
        self,
        object_id: int,
        frame: int | Mapping[str, int],
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        scribbles: Any = None,
        mask: np.ndarray | None = None,
        lasso: Any = None,
        predict: bool = True,
    ) -> np.ndarray | None:
        """Show an object on a frame; the result is in the labels at once.

        On a frame that the object was tracked through, points and scribbles correct the mask that is there;
        otherwise each prompt refines what the earlier ones on the frame gave.

        Parameters
        ----------
        object_id : int
        frame : int or mapping
            Frame number, or ``{"t": 3, "z": 10}`` in a 3D time-lapse.
        points : (N, 2) array_like, optional
            (x, y) in pixels.
        labels : (N,) array_like, optional
            1 on the object, 0 off it.
        box : (4,) array_like, optional
            x0, y0, x1, y1.
        scribbles : list of dict, optional
            ``{"points": [[x, y], ...], "label": 1}`` each.
        mask : ndarray, (height, width) bool, optional
        lasso : (N, 2) array_like, optional
            Outline of the object.
        predict : bool
            Compute and write the object's mask on the frame; without it the prompt waits for `propagate`.

        Returns
        -------
        ndarray, (height, width) bool, or None
            The object's mask on the frame; None if `predict` is false.

        Raises
        ------
        InputError
            If the prompt is incomplete or lies outside the volume, or the object is locked.
        """
        prompt = make_prompt(
            object_id, frame, points=points, labels=labels, box=box, scribbles=scribbles, mask=mask, lasso=lasso
        )
        return self._add(object_id, prompt, predict)

    def add_prompts(self, objects: Iterable[LabelledObject]) -> None:
        """Add objects with all their prompts, as a prompts file holds them, to wait for `propagate`.

        Raises
        ------
        InputError
            Before anything is added, if an id is taken or a prompt lies outside the volume.
        """
        objects = tuple(objects)
        check_prompts(objects, self.grid)
        for item in objects:
            if item.id in self.state.objects:
                raise InputError(f"there is an object {item.id} already: choose another id")
        for item in objects:
            self.add_object(item.id, name=item.name, class_name=item.class_name, colour=item.colour)
            for prompt in item.prompts:
                self._add(item.id, prompt, predict=False)

    def replace_prompts(
        self, object_id: int, frame: int | Mapping[str, int], prompts: Sequence[Prompt | Mapping[str, Any]]
    ) -> np.ndarray:
        """Make these the prompts of an object on a frame, in one act; the frame then shows what they give.

        Prompts that were there and are given again keep their serial numbers. Without any, the frame shows what
        the object had there before its first prompt: a tracked mask, or nothing.

        Parameters
        ----------
        object_id : int
        frame
            As in `add_prompt`.
        prompts : sequence of Prompt or mapping
            In the order in which they count; mappings as `add_prompt` takes them, such as
            ``{"points": [[3, 4]], "labels": [1]}``. A frame of their own is not looked at.

        Returns
        -------
        ndarray, (height, width) bool
            The object's mask on the frame.

        Raises
        ------
        InputError
            If a prompt is incomplete or lies outside the volume, or the object is locked.
        """
        with self.acting():
            item = self._unlocked(object_id)
            plane = self.plane(frame)
            whole = [self._whole(object_id, plane, prompt) for prompt in prompts]
            for number, prompt in enumerate(whole):
                self._checked(object_id, number, prompt)
            before = item.on(plane)
            placed = self._placed(item, plane, whole)
            if placed:
                patch, confidence = self._answer(object_id, plane, placed)
            elif before:
                base = before[0].base
                patch, confidence = Patch.nothing() if base is None else Patch.of_mask(base.decode()), None
            else:
                return self.read_plane(plane) == object_id
            change = self._answered(plane, object_id, patch, confidence)
            self.act({**replaced(object_id, plane, placed), "planes": [change]})
            return self.read_plane(plane) == object_id

    def remove_prompt(self, object_id: int, serial: int) -> None:
        """Take a prompt back; the frame then shows what the object's remaining prompts on it give.

        Raises
        ------
        InputError
            If there is no such prompt, or the object is locked.
        """
        with self.acting():
            item = self._unlocked(object_id)
            plane = next((p.plane for p in item.prompts if p.serial == serial), None)
            if plane is None:
                raise InputError(f"object {object_id} has no prompt {serial}")
            rest = [p.prompt for p in item.on(plane) if p.serial != serial]
            self.replace_prompts(object_id, dict(plane) or 0, rest)

    def predict(self, object_id: int, frame: int | Mapping[str, int]) -> np.ndarray:
        """What an object's prompts on a frame give, (height, width) float32 logits; nothing is written.

        Raises
        ------
        InputError
            If the object has no prompt on the frame.
        """
        with self.lock:
            plane = self.plane(frame)
            prompts = self.state[object_id].on(plane)
            if not prompts:
                raise InputError(f"object {object_id} has no prompt on frame {self.grid.name(plane)}")
            return self._answers.logits(object_id, plane, prompts)

    def _add(self, object_id: int, prompt: Prompt, predict: bool) -> np.ndarray | None:
        with self.acting():
            item = self._unlocked(object_id)
            plane = self._checked(object_id, len(item.prompts), prompt)
            placed = self._placed(item, plane, [*(p.prompt for p in item.on(plane)), prompt])
            record = {"act": "prompt", "id": object_id, **placed[-1].to_json()}
            if not predict:
                self.act(record)
                return None
            patch, confidence = self._answer(object_id, plane, placed)
            self.act({**record, "planes": [self._answered(plane, object_id, patch, confidence)]})
            return self.read_plane(plane) == object_id

    def _whole(self, object_id: int, plane: Plane, prompt: Prompt | Mapping[str, Any]) -> Prompt:
        """A prompt on a plane, from one or from its fields."""
        frame = self.grid.name(plane)
        if isinstance(prompt, Prompt):
            return prompt.model_copy(update={"frame": frame})
        return make_prompt(object_id, frame, **{k: v for k, v in prompt.items() if k != "frame"})

    def _checked(self, object_id: int, number: int, prompt: Prompt) -> Plane:
        """Where a prompt lies; InputError if that is not in the volume."""
        try:
            plane = self.grid.plane(prompt.frame)
            prompt.check(self.grid.size)
        except ValueError as error:
            raise InputError(f"{describe(object_id, number, prompt)}: {error}") from None
        return plane

    def _placed(self, item: SessionObject, plane: Plane, prompts: Sequence[Prompt]) -> list[PlacedPrompt]:
        """All prompts of an object on a plane; those that are there already keep their numbers."""
        there = item.on(plane)
        base = there[0].base if there else mask_rle(self.read_plane(plane), item.id)
        serial = self.state.next_serial
        placed: list[PlacedPrompt] = []
        for prompt in prompts:
            prompt = prompt.model_copy(update={"frame": dict(plane) or 0})
            known = next((p for p in there if p.prompt == prompt), None)
            if known is None:
                known = PlacedPrompt(serial, plane, prompt)
                serial += 1
            else:
                there.remove(known)
            placed.append(replace(known, base=None if placed else base))
        return placed

    def _answer(self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt]) -> tuple[Patch, float | None]:
        """What prompts give, and how sure the model is of it."""
        patch = self._answers.patch(object_id, plane, prompts)
        return patch, self._answers.confidence

    def _answered(self, plane: Plane, object_id: int, patch: Patch, confidence: float | None) -> dict[str, Any]:
        """The change that an answer makes in the labels."""
        old = self.read_plane(plane)
        new, region = compose(old, {object_id: patch}, [i.id for i in self.state if i.locked])
        return self.change(plane, old, new, {object_id: confidence}, region)


def replaced(object_id: int, plane: Plane, prompts: Iterable[PlacedPrompt]) -> dict[str, Any]:
    """The record of an object's new prompts on a plane."""
    return {"act": "replace-prompts", "id": object_id, "at": dict(plane), "prompts": [p.to_json() for p in prompts]}
