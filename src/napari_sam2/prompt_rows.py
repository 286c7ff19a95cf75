"""Between a session's prompts and what stands for them on the canvas: one row a point, one row a shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from sam2_core.volume.prompts import Prompt, Scribble, make_prompt
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_state import PlacedPrompt, Plane, State

Kind = Literal["point", "box", "scribble", "lasso"]
Corner = tuple[float, float]

ROUNDING = 1e-2
"""Pixels by which coordinates may differ that went through a layer, which keeps them in single precision."""


@dataclass(frozen=True)
class Row:
    """One point or shape on the canvas.

    Attributes
    ----------
    object_id : int
    plane : Plane
    kind : {"point", "box", "scribble", "lasso"}
    corners : tuple of (float, float)
        (x, y) in pixels: the point; two opposite corners of a box; the corners of a line or an outline.
    label : int
        1 on the object, 0 off it; boxes and lassos have 1.
    serial : int
        Of the session's prompt that it is a part of; 0 of a new one.
    """

    object_id: int
    plane: Plane
    kind: Kind
    corners: tuple[Corner, ...]
    label: int = 1
    serial: int = 0


@dataclass(frozen=True)
class Change:
    """What is to become of some prompts of an object on a plane: by serial, None of those that are to go."""

    object_id: int
    plane: Plane
    prompts: Mapping[int, Prompt | None]


def rows_of(state: State) -> Iterator[Row]:
    """What stands for the prompts of all objects; a mask given as a prompt has no row."""
    for item in state:
        for placed in item.prompts:
            yield from _rows(item.id, placed)


def prompt_of(row: Row, frame: Any) -> Prompt:
    """The prompt that a new row is, on a frame as the session's grid names it; InputError if none, as of a flat box."""
    return make_prompt(row.object_id, frame, **_fields([row]))


def changes(state: State, rows: Iterable[Row], frame_of: Any) -> list[Change]:
    """What has to be done to the session for its prompts to be those on the canvas, where they were moved or deleted.

    Parameters
    ----------
    state : State
        Of the session when its prompts were drawn.
    rows : iterable of Row
        All there are; new ones (serial 0) are left out of account.
    frame_of : callable
        A plane as prompts name it.

    Raises
    ------
    InputError
        If what was moved is no prompt any more, as a box at the border of the image that has become flat.
    """
    shown: dict[int, list[Row]] = {}
    for row in rows:
        if row.serial:
            shown.setdefault(row.serial, []).append(row)
    result = []
    for item in state:
        for plane in item.planes():
            after = [(placed, _after(item.id, placed, shown, frame_of(plane))) for placed in item.on(plane)]
            changed = {placed.serial: prompt for placed, prompt in after if prompt != placed.prompt}
            if changed:
                result.append(Change(item.id, plane, changed))
    return result


def _after(object_id: int, placed: PlacedPrompt, shown: dict[int, list[Row]], frame: Any) -> Prompt | None:
    """A prompt as the canvas has it now: the same object where nothing changed, None where it is gone."""
    now = shown.get(placed.serial, [])
    if _alike(now, list(_rows(object_id, placed))):
        return placed.prompt
    fields = _fields(now)
    mask = placed.prompt.mask
    if isinstance(mask, Rle):
        fields["mask"] = mask.decode()
    return make_prompt(object_id, frame, **fields) if fields else None


def _alike(one: list[Row], other: list[Row]) -> bool:
    """Whether rows are the same, but for the rounding of coordinates in the layers."""
    if len(one) != len(other):
        return False
    return all(
        replace(a, corners=()) == replace(b, corners=())
        and len(a.corners) == len(b.corners)
        and bool(np.allclose(a.corners, b.corners, rtol=0, atol=ROUNDING))
        for a, b in zip(one, other)
    )


def _rows(object_id: int, placed: PlacedPrompt) -> Iterator[Row]:
    prompt, plane, serial = placed.prompt, placed.plane, placed.serial
    for point, label in zip(prompt.points or (), prompt.labels or ()):
        yield Row(object_id, plane, "point", (point,), int(label), serial)
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        yield Row(object_id, plane, "box", ((x0, y0), (x1, y1)), 1, serial)
    for scribble in prompt.scribbles or ():
        yield Row(object_id, plane, "scribble", scribble.points, int(scribble.label), serial)
    if prompt.lasso is not None:
        yield Row(object_id, plane, "lasso", prompt.lasso, 1, serial)


def _fields(rows: list[Row]) -> dict[str, Any]:
    points = [row for row in rows if row.kind == "point"]
    boxes = [row for row in rows if row.kind == "box"]
    scribbles = [row for row in rows if row.kind == "scribble"]
    lassos = [row for row in rows if row.kind == "lasso"]
    fields: dict[str, Any] = {}
    if points:
        fields["points"] = tuple(row.corners[0] for row in points)
        fields["labels"] = tuple(row.label for row in points)
    if boxes:
        xs, ys = zip(*boxes[-1].corners)
        fields["box"] = (min(xs), min(ys), max(xs), max(ys))
    if scribbles:
        fields["scribbles"] = tuple(Scribble(points=row.corners, label=1 if row.label else 0) for row in scribbles)
    if lassos:
        fields["lasso"] = lassos[-1].corners
    return fields
