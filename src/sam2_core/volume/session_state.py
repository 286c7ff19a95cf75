"""What a session knows: objects and their prompts, as immutable values, and how one act changes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sam2_core.errors import InputError
from sam2_core.volume.prompts import LabelledObject, Prompt, describe
from sam2_core.volume.rle import Rle

Plane = tuple[tuple[str, int], ...]
"""Where a plane lies: (axis, index) of every axis outside it, such as (("t", 3), ("z", 10))."""


def place(at: Mapping[str, Any]) -> Plane:
    """A plane as the journal names it."""
    return tuple((axis, int(index)) for axis, index in at.items())


@dataclass(frozen=True)
class Grid:
    """The planes of a volume across an axis of propagation.

    Attributes
    ----------
    axes : tuple of (str, int)
        Axes outside the plane, channels left out, and their lengths, in the order t, z, y, x.
    size : (int, int)
        Height and width of a plane in pixels.
    axis : str or None
        The axis of propagation, None for a single plane.
    """

    axes: tuple[tuple[str, int], ...]
    size: tuple[int, int]
    axis: str | None

    @property
    def carried(self) -> bool:
        """Whether objects are carried through two axes, depth and then time."""
        return self.axis is not None and self.axis != "t" and self.length("t") > 1

    def length(self, axis: str | None) -> int:
        """Number of planes along an axis, 1 if it is absent."""
        return dict(self.axes).get(axis or "", 1)

    def name(self, plane: Plane) -> int | dict[str, int]:
        """What a prompts file calls a plane: its number, or its position along several axes."""
        wide = {a: i for a, i in plane if self.length(a) > 1}
        return wide if len(wide) > 1 else next(iter(wide.values()), 0)

    def plane(self, frame: int | Mapping[str, int]) -> Plane:
        """The plane that a prompt's `frame` names; axes of length 1 need not be named.

        Raises
        ------
        ValueError
            If the frame does not exist, or does not say all there is to say.
        """
        wide = [a for a, n in self.axes if n > 1]
        if not isinstance(frame, Mapping):
            if len(wide) > 1:
                example = ", ".join(f'"{a}": 0' for a in wide)
                raise ValueError(f"frame {frame} is on no plane of its own here: give {{{example}}}")
            frame = {wide[0] if wide else self.axis or "t": int(frame)}
        for axis, index in frame.items():
            if axis not in dict(self.axes) and index != 0:
                known = ", ".join(a for a, _ in self.axes) or "none"
                raise ValueError(f"frame names the axis {axis}, but planes are numbered along: {known}")
            if not 0 <= index < self.length(axis):
                raise ValueError(f"frame {axis} {index} does not exist: {axis} goes from 0 to {self.length(axis) - 1}")
        if missing := [a for a in wide if a not in frame]:
            raise ValueError(f"frame does not say which {missing[0]}: give it, from 0 to {self.length(missing[0]) - 1}")
        return tuple((a, int(frame.get(a, 0))) for a, _ in self.axes)


def check_prompts(objects: tuple[LabelledObject, ...], grid: Grid) -> None:
    """Check that every prompt lies in the volume.

    Raises
    ------
    InputError
        Naming the object and the prompt.
    """
    for item in objects:
        for number, prompt in enumerate(item.prompts):
            try:
                grid.plane(prompt.frame)
                prompt.check(grid.size)
            except ValueError as error:
                raise InputError(f"{describe(item.id, number, prompt)}: {error}") from None


@dataclass(frozen=True)
class PlacedPrompt:
    """A prompt of an object on a plane.

    `serial` numbers the prompts of a session; `base`, at the first prompt of an object on a plane, is the mask
    that the object had there before, such as a tracked one. Points and scribbles correct it; when all prompts are
    gone it shows again. So what prompts give depends on nothing but what is stored here.
    """

    serial: int
    plane: Plane
    prompt: Prompt
    base: Rle | None = None

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        prompt = self.prompt.model_dump(mode="json", exclude_none=True)
        prompt["frame"] = dict(self.plane)
        base = {} if self.base is None else {"base": self.base.model_dump(mode="json")}
        return {"serial": self.serial, "prompt": prompt, **base}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlacedPrompt:
        """The inverse of `to_json`."""
        prompt = Prompt.model_validate({**data["prompt"], "frame": data["prompt"]["frame"] or 0})
        base = Rle.model_validate(data["base"]) if "base" in data else None
        return cls(data["serial"], tuple(data["prompt"]["frame"].items()), prompt, base)


Seen = tuple[tuple[Plane, tuple[int, ...]], ...]
"""The prompts that a propagation took into account: serial numbers, plane by plane."""


@dataclass(frozen=True)
class SessionObject:
    """One object: its number in the labels, what it is called and how it is shown, and its prompts.

    A locked object is neither changed nor painted over.
    """

    id: int
    name: str | None = None
    class_name: str | None = None
    colour: str | None = None
    locked: bool = False
    visible: bool = True
    prompts: tuple[PlacedPrompt, ...] = ()
    propagated: Seen = ()

    def planes(self) -> list[Plane]:
        """The planes that carry prompts, each once, in the order of the first prompt."""
        return list(dict.fromkeys(p.plane for p in self.prompts))

    def on(self, plane: Plane) -> list[PlacedPrompt]:
        """The prompts on a plane, oldest first."""
        return [p for p in self.prompts if p.plane == plane]

    def seen(self) -> Seen:
        """What a propagation that starts now takes into account."""
        return tuple((plane, tuple(p.serial for p in self.on(plane))) for plane in self.planes())

    def changed(self) -> list[Plane]:
        """Planes whose prompts are not those of the last propagation, prompts that were taken away included."""
        before, now = dict(self.propagated), dict(self.seen())
        return [plane for plane in {**now, **before} if before.get(plane) != now.get(plane)]


EDITABLE = ("name", "class_name", "colour", "locked", "visible")


@dataclass(frozen=True)
class State:
    """All objects of a session, by id."""

    objects: Mapping[int, SessionObject] = field(default_factory=dict)
    next_serial: int = 1

    def __iter__(self) -> Iterator[SessionObject]:
        return iter(self.objects.values())

    def __getitem__(self, object_id: int) -> SessionObject:
        if object_id not in self.objects:
            known = ", ".join(map(str, self.objects)) or "none yet"
            raise InputError(f"there is no object {object_id}: the session's objects are {known}")
        return self.objects[object_id]

    def put(self, item: SessionObject) -> State:
        """With an object added or replaced."""
        return replace(self, objects={**self.objects, item.id: item})


def reduce(state: State, act: Mapping[str, Any]) -> State:
    """The state after an act, as the journal records it; acts that change no object leave it as it is."""
    kind = act["act"]
    if "steps" in act:
        for step in act["steps"]:
            state = reduce(state, step)
        return state
    if kind == "add-object":
        return state.put(SessionObject(act["id"], **{k: act[k] for k in EDITABLE if k in act}))
    if kind == "edit-object":
        return state.put(replace(state[act["id"]], **{k: act[k] for k in EDITABLE if k in act}))
    if kind == "delete-object":
        return replace(state, objects={i: o for i, o in state.objects.items() if i != act["id"]})
    if kind == "prompt":
        placed = PlacedPrompt.from_json(act)
        item = state[act["id"]]
        state = state.put(replace(item, prompts=(*item.prompts, placed)))
        return replace(state, next_serial=max(state.next_serial, placed.serial + 1))
    if kind == "replace-prompts":
        item = state[act["id"]]
        state = state.put(replace(item, prompts=_spliced(item.prompts, place(act["at"]), act["prompts"])))
        return replace(state, next_serial=max([state.next_serial, *(p["serial"] + 1 for p in act["prompts"])]))
    if kind == "remove-prompt":  # of journals before "replace-prompts"
        item = state[act["id"]]
        return state.put(replace(item, prompts=tuple(p for p in item.prompts if p.serial != act["serial"])))
    if kind == "end" and "objects" in act:
        for object_id in act["objects"]:
            if object_id in state.objects:
                item = state[object_id]
                state = state.put(replace(item, propagated=_seen_within(item, act["ranges"])))
    return state


def _spliced(old: tuple[PlacedPrompt, ...], plane: Plane, records: list[dict[str, Any]]) -> tuple[PlacedPrompt, ...]:
    """Prompts with those on a plane replaced, where the first of them stood."""
    first = next((i for i, p in enumerate(old) if p.plane == plane), len(old))
    after = (p for p in old[first:] if p.plane != plane)
    return (*old[:first], *(PlacedPrompt.from_json(r) for r in records), *after)


def _seen_within(item: SessionObject, ranges: Mapping[str, tuple[int, int]]) -> Seen:
    """What was propagated before, brought up to date where a run over `ranges` has passed."""
    inside = [p for p in {**dict(item.seen()), **dict(item.propagated)} if is_within(p, ranges)]
    kept = {plane: serials for plane, serials in item.propagated if plane not in inside}
    return tuple({**kept, **{plane: serials for plane, serials in item.seen() if plane in inside}}.items())


def is_within(plane: Plane, ranges: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a plane lies in ranges (first, last + 1) of some axes."""
    return all(ranges[a][0] <= i < ranges[a][1] for a, i in plane if a in ranges)
