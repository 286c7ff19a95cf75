"""The way of a propagation through a volume: which lines of planes, in which order, and what each starts from.

Along one axis that is one line forward and one backward. In a 3D time-lapse an object prompted in a (t, z) plane
is carried through z at that t; then along t in the plane it was prompted in; then through z again at each t,
starting from the mask that came along t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_state import Grid, PlacedPrompt, Plane, SessionObject, State, is_within

Direction = Literal["forward", "backward", "both"]
Span = tuple[int, int, int]
"""Object id, first and last frame of a stretch, in the direction of travel."""


@dataclass(frozen=True)
class Request:
    """What to propagate.

    `ranges` holds (first, last + 1) for the axes of propagation; with `changed_only`, only objects whose prompts
    changed since they were last propagated, from the change to the neighbouring prompts; with `until_lost`, an
    object that is lost is not tracked further (see `session_lost`).
    """

    objects: tuple[int, ...]
    ranges: Mapping[str, tuple[int, int]]
    direction: Direction = "both"
    changed_only: bool = False
    until_lost: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        ranges = {axis: list(ends) for axis, ends in self.ranges.items()}
        return {
            "objects": list(self.objects),
            "ranges": ranges,
            "direction": self.direction,
            "changed_only": self.changed_only,
            "until_lost": self.until_lost,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`."""
        ranges = {axis: (ends[0], ends[1]) for axis, ends in data["ranges"].items()}
        until_lost = data.get("until_lost", False)  # not in older journals
        return cls(tuple(data["objects"]), ranges, data["direction"], data["changed_only"], until_lost)


def check_direction(direction: str) -> Direction:
    """The direction of that name; InputError if there is none."""
    for known in get_args(Direction):
        if direction == known:
            return known
    raise InputError(f"direction {direction!r}: choose forward, backward or both")


def complete_ranges(grid: Grid, wanted: Mapping[str, tuple[int | None, int | None]]) -> dict[str, tuple[int, int]]:
    """The range of every axis of propagation: what is wanted, and the whole of the others.

    Raises
    ------
    InputError
        If a range does not exist.
    """
    ends = {a: (0, grid.length(a)) for a, _ in grid.axes if a == grid.axis or grid.carried}
    for axis, (first, last) in wanted.items():
        if axis not in ends:
            along = ", ".join(ends) or "no axis, it is one plane"
            raise InputError(f"there is no range along {axis!r}: objects are propagated along {along}")
        count = ends[axis][1]
        low, high = first or 0, count if last is None else last
        if not 0 <= low < high <= count:
            raise InputError(f"the range {low}:{high} is not within the frames 0:{count} along {axis}")
        ends[axis] = (low, high)
    return ends


Seed = list[PlacedPrompt] | Rle
"""What tells the tracker where an object is on a frame: the user's prompts, or a mask."""


@dataclass(frozen=True)
class Leg:
    """One line of planes to track along, with all that it depends on but the images."""

    axis: str | None
    fixed: Mapping[str, int]
    reverse: bool
    spans: tuple[Span, ...]
    seeds: Mapping[int, Mapping[int, Seed]]
    cleared: tuple[Span, ...] = ()

    def frames(self) -> list[int]:
        """The frames it visits, in order."""
        visited: set[int] = set()
        for _, first, last in (*self.spans, *self.cleared):
            visited.update(range(min(first, last), max(first, last) + 1))
        return sorted(visited, reverse=self.reverse)

    def plane(self, frame: int, grid: Grid) -> Plane:
        """Where a frame lies in the volume."""
        here = {**self.fixed, **({self.axis: frame} if self.axis else {})}
        return tuple((a, here.get(a, 0)) for a, _ in grid.axes)

    def to_json(self) -> dict[str, Any]:
        """For the journal: the masks it starts from; the rest follows from the plan."""
        return {
            "masks": {
                str(i): {str(f): s.model_dump(mode="json") for f, s in seeds.items() if isinstance(s, Rle)}
                for i, seeds in self.seeds.items()
            }
        }


@dataclass(frozen=True)
class Stage:
    """A leg before it is reached: some of its masks will come from labels that an earlier leg writes."""

    axis: str | None
    fixed: Mapping[str, int]
    reverse: bool
    spans: tuple[Span, ...]
    prompts: Mapping[int, Mapping[int, list[PlacedPrompt]]]
    masks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    optional: frozenset[int] = frozenset()

    def leg(self, mask_at: Callable[[int, int], Rle | None]) -> Leg | None:
        """The leg, with the masks of objects as `mask_at(object_id, frame)` gives them; None if nothing starts.

        An object that has no mask left is cleared along its stretch.
        """
        seeds: dict[int, dict[int, Seed]] = {}
        for object_id in dict.fromkeys(i for i, _, _ in self.spans):
            found: dict[int, Seed] = dict(self.prompts.get(object_id, {}))
            for frame in self.masks.get(object_id, ()):
                if frame not in found and (mask := mask_at(object_id, frame)) is not None:
                    found[frame] = mask
            if found:
                seeds[object_id] = found
        spans = tuple(s for s in self.spans if s[0] in seeds)
        cleared = tuple(s for s in self.spans if s[0] not in seeds and s[0] not in self.optional)
        if not spans and not cleared:
            return None
        return Leg(self.axis, self.fixed, self.reverse, spans, seeds, cleared)

    def length(self) -> int:
        """Number of frames, if no object vanishes."""
        return len(Leg(self.axis, self.fixed, self.reverse, self.spans, {}).frames())


def make_plan(request: Request, state: State, grid: Grid) -> list[Stage]:
    """The stages of a propagation, in order; they depend on the prompts alone.

    Raises
    ------
    InputError
        If an object that is to be propagated has nothing to start from.
    """
    check_direction(request.direction)
    objects = [state[i] for i in request.objects]
    for item in objects:
        if item.locked:
            raise InputError(f"object {item.id} is locked: unlock it to propagate it")
        if not item.prompts:
            raise InputError(f"object {item.id} has no prompts: give it one before propagating")
    if request.changed_only:
        objects = [item for item in objects if any(is_within(p, request.ranges) for p in item.changed())]
    if grid.carried:
        return _plan_carried(request, objects, grid)
    stages: list[Stage] = []
    still: dict[Plane, list[SessionObject]] = {}
    for item in objects:
        for plane in item.planes():
            here = still.setdefault(tuple(p for p in plane if p[0] != grid.axis), [])
            if item not in here:
                here.append(item)
    for fixed, here in sorted(still.items()):
        lines = {i.id: _line(i, grid.axis, dict(fixed), request) for i in here}
        stages += _stages(grid.axis, dict(fixed), lines, request, grid)
    return stages


@dataclass
class _Line:
    """One object on one line: frames with prompts, frames whose mask is taken over, frames that changed."""

    prompts: dict[int, list[PlacedPrompt]]
    masks: tuple[int, ...] = ()
    changed: list[int] | None = None
    optional: bool = True

    @property
    def starts(self) -> list[int]:
        return sorted({*self.prompts, *self.masks})


def _line(item: SessionObject, axis: str | None, fixed: Mapping[str, int], request: Request) -> _Line:
    def on_line(planes: Iterable[Plane]) -> list[int]:
        return [dict(p).get(axis or "", 0) for p in planes if all(dict(p).get(a) == i for a, i in fixed.items())]

    frames = on_line(item.planes())
    prompts = {f: item.on(p) for f, p in zip(frames, [p for p in item.planes() if on_line([p])])}
    return _Line(prompts, changed=on_line(item.changed()) if request.changed_only else None)


def _stages(
    axis: str | None, fixed: Mapping[str, int], lines: Mapping[int, _Line], request: Request, grid: Grid
) -> list[Stage]:
    """Forward and backward along one line, objects joining where they start."""
    low, high = request.ranges.get(axis or "", (0, grid.length(axis)))
    ahead: list[Span] = []
    back: list[Span] = []
    masks: dict[int, tuple[int, ...]] = {}
    for object_id, line in lines.items():
        starts = [f for f in line.starts if low <= f < high]
        masks[object_id] = line.masks
        if not starts:  # prompted outside the range: go on from the result at its near end
            before = any(f < low for f in line.starts)
            masks[object_id] = (*line.masks, low if before else high - 1)
            if before and request.direction != "backward":
                ahead.append((object_id, low, high - 1))
            elif not before and request.direction != "forward":
                back.append((object_id, high - 1, low))
            continue
        forward, backward = _spans(starts, line.changed, low, high, request.direction)
        ahead += [(object_id, a, b) for a, b in forward]
        back += [(object_id, a, b) for a, b in backward]
    prompts = {i: line.prompts for i, line in lines.items()}
    optional = frozenset(i for i, line in lines.items() if line.optional)
    return [
        Stage(axis, fixed, reverse, tuple(spans), prompts, masks, optional)
        for reverse, spans in ((False, ahead), (True, back))
        if spans
    ]


def _spans(
    starts: list[int], changed: list[int] | None, low: int, high: int, direction: Direction
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Stretches to track forward and backward for one object that starts on the frames `starts`."""
    ahead: dict[int, int] = {}
    back: dict[int, int] = {}
    if changed is None:
        if direction != "backward":
            ahead[starts[0]] = high - 1
        if direction == "backward":
            back[starts[-1]] = low
        elif direction == "both" and starts[0] > low:
            back[starts[0] - 1] = low
        return list(ahead.items()), list(back.items())
    for frame in sorted(f for f in changed if low <= f < high):
        here = frame in starts
        before = [f for f in starts if f < frame]
        after = [f for f in starts if f > frame]
        if direction != "backward" and (here or before):
            first = frame if here else before[-1]
            ahead[first] = after[0] - 1 if after else high - 1
        if direction != "forward" and (here or after):
            first = frame if here else after[0]
            last = before[-1] + 1 if before else low
            if direction == "both" and first in ahead:
                first -= 1
            if first >= last:
                back[first] = last
    return list(ahead.items()), list(back.items())


def _plan_carried(request: Request, objects: list[SessionObject], grid: Grid) -> list[Stage]:
    """Through depth where prompted, then through time in the prompted plane, then through depth at every time."""
    depth = grid.axis or "z"
    stages: list[Stage] = []
    times: dict[int, list[int]] = {}  # object id: times at which it has prompts
    dirty: dict[int, list[int]] = {}
    seat: dict[int, int] = {}  # object id: the plane in depth that is followed through time
    for item in objects:
        inside = [dict(p) for p in item.planes() if is_within(p, request.ranges)]
        if not inside:
            raise InputError(f"object {item.id} has no prompt within the range: widen the range or prompt it there")
        times[item.id] = sorted({p["t"] for p in inside})
        seat[item.id] = inside[0][depth]
        touched = {dict(p)["t"] for p in item.changed() if is_within(p, request.ranges)}
        dirty[item.id] = sorted(touched) if request.changed_only else times[item.id]
    for t in sorted({t for ts in dirty.values() for t in ts}):
        here = [item for item in objects if t in dirty[item.id] and t in times[item.id]]
        stages += _stages(depth, {"t": t}, {i.id: _line(i, depth, {"t": t}, request) for i in here}, request, grid)
    through_time: list[Stage] = []
    for z in sorted(set(seat.values())):
        lines = {}
        for item in (i for i in objects if seat[i.id] == z):
            drawn = _line(item, "t", {depth: z}, request).prompts
            masks = tuple(t for t in times[item.id] if t not in drawn)
            changed = dirty[item.id] if request.changed_only else None
            lines[item.id] = _Line(drawn, masks, changed)
        through_time += _stages("t", {depth: z}, lines, request, grid)
    stages += through_time
    reached: dict[int, set[int]] = {}
    for stage in through_time:
        for object_id, first, last in stage.spans:
            for t in range(min(first, last), max(first, last) + 1):
                if t not in times[object_id]:
                    reached.setdefault(t, set()).add(object_id)
    again = Request(request.objects, request.ranges, request.direction)
    for t in sorted(reached):
        lines = {
            item.id: _Line({}, (seat[item.id],), optional=not item.propagated)
            for item in objects
            if item.id in reached[t]
        }
        stages += _stages(depth, {"t": t}, lines, again, grid)
    return stages


def mask_rle(plane: np.ndarray, object_id: int) -> Rle | None:
    """An object's mask in a plane of labels, None if it is not there."""
    mask = plane == object_id
    return Rle.encode(mask) if mask.any() else None
