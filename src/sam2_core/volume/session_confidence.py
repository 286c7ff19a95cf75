"""Where the model is least sure of what it tracked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from sam2_core.volume.session_state import Grid, Plane, SessionObject

Dip = tuple[int, Plane, float]
"""Object id, plane and confidence."""


def dips(objects: Iterable[tuple[SessionObject, Mapping[Plane, float]]], grid: Grid) -> list[Dip]:
    """The planes where the confidence in an object is lower than before and after, the lowest first.

    Neighbours are the planes next to each other along the axis of propagation; several of the same confidence count
    as one, the first of them. A plane with prompts of the object counts as certain. Where nothing is known of the
    neighbour, as at the ends of the volume, it counts as higher; but an object that is not found (0) up to such an
    end has left, and that is no dip. Of the objects that dip on a plane, the least certain is given.

    Parameters
    ----------
    objects : iterable of (SessionObject, mapping of Plane to float)
        With the confidence in each, in [0, 1].
    grid : Grid

    Returns
    -------
    list of (int, Plane, float)
    """
    worst: dict[Plane, Dip] = {}
    for item, known in objects:
        prompted = set(item.planes())
        for line in _lines({**known, **dict.fromkeys(prompted, 1.0)}, grid):
            for plane, value in _low(line):
                if plane not in prompted and (plane not in worst or value < worst[plane][2]):
                    worst[plane] = (item.id, plane, value)
    return sorted(worst.values(), key=lambda dip: (dip[2], dip[1], dip[0]))


def _lines(known: Mapping[Plane, float], grid: Grid) -> list[list[tuple[Plane, float]]]:
    """Planes that follow each other along the axis of propagation, with their confidence."""

    def along(plane: Plane) -> tuple[Any, int]:
        return tuple(p for p in plane if p[0] != grid.axis), dict(plane).get(grid.axis or "", 0)

    lines: list[list[tuple[Plane, float]]] = []
    last: tuple[Any, int] | None = None
    for plane in sorted(known, key=along):
        still, index = along(plane)
        if last is None or last != (still, index - 1):
            lines.append([])
        lines[-1].append((plane, known[plane]))
        last = still, index
    return lines


def _low(line: list[tuple[Plane, float]]) -> list[tuple[Plane, float]]:
    """The dips of a line, prompted planes among them."""
    runs = [next(same) for _, same in groupby(line, key=lambda at: at[1])]
    values = [value for _, value in runs]
    beyond = [1.0 if end > 0 else 0.0 for end in (values[0], values[-1])]
    around = zip([beyond[0], *values[:-1]], [*values[1:], beyond[1]])
    return [run for run, (before, after) in zip(runs, around) if run[1] < min(before, after)]
