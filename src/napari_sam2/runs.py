"""What the engine goes through step by step: a propagation, and the search for everything there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.automatic import automatic, label_finder

if TYPE_CHECKING:
    from sam2_core.predict.automatic_tiles import Box
    from sam2_core.volume.session import Run, Session
    from sam2_core.volume.session_state import Plane

LARGE = 2
"""A plane whose side is more than so many times the model's input is searched by tiles."""
BATCH = 16
"""Clicks of a search that are answered at once: the fewer, the sooner an act gets in between."""


@dataclass(frozen=True)
class Step:
    """How far a run is after a step.

    Attributes
    ----------
    done, total : int
        Steps done and to do.
    planes : sequence of Plane, or None
        Those whose labels the step changed; None for any.
    found : int
        New objects so far.
    """

    done: int
    total: int
    planes: Sequence[Plane] | None = ()
    found: int = 0


@dataclass(frozen=True)
class Search:
    """Where and how everything is looked for.

    Attributes
    ----------
    planes : tuple of Plane
    region : (int, int, int, int) or None
        x0, y0, x1, y1 in pixels, x1 and y1 exclusive: only there.
    tiles : bool or None
        Whether planes are searched by tiles of the model's input size; None: where they are `LARGE`.
    link : bool
        Objects go on from plane to plane.
    min_area, max_area : int, int or None
        Pixels of what is kept.
    settings : mapping
        Of `sam2_core.predict.automatic.SAM2AutomaticMaskGenerator`.
    """

    planes: tuple[Plane, ...]
    region: Box | None = None
    tiles: bool | None = None
    link: bool = True
    min_area: int = 0
    max_area: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class Stopped(Exception):
    """Ends a search in the middle of a step."""


def tracking(run: Run | None) -> Iterator[Step]:
    """The steps of a propagation, a plane each; InputError if there is none."""
    if run is None:
        raise InputError("there is no propagation to go on with")
    with closing(run):
        yield Step(0, run.length)
        for done, (frame, _) in enumerate(run, 1):
            yield Step(done, max(run.length, done), [run.session.grid.plane(frame)])


def searching(
    session: Session, search: Search, between: Callable[[float, int], None], next_id: Callable[[int], int]
) -> Iterator[Step]:
    """The steps of a search, a tile each.

    Parameters
    ----------
    session : Session
    search : Search
    between : callable
        Called often within a step, with the steps done, in fractions, and to do. The session may change there;
        `Stopped`, raised by it, ends the search.
    next_id : callable
        Gives the id of a new object, above another id.
    """
    from sam2_core.predict.automatic_tiles import tile_boxes

    height, width = session.grid.size
    x0, y0, x1, y1 = search.region or (0, 0, width, height)
    side = None if search.tiles is False else int(session.predictor.model.image_size)
    if side is not None and not search.tiles and max(y1 - y0, x1 - x0) <= LARGE * side:
        side = None
    total = len(search.planes) * (1 if side is None else len(tile_boxes((y1 - y0, x1 - x0), side)))
    done, found = 0, set[int]()
    before = session.state.objects, len(session.history.done)

    def answered(clicks: int, of: int) -> None:
        between(done + clicks / of, total)

    finder = label_finder(session.predictor, answered, points_per_batch=BATCH, **search.settings)

    def find(image: np.ndarray) -> np.ndarray:
        nonlocal before
        labels = finder(image)
        before = session.state.objects, len(session.history.done)  # what comes now is the search's own
        return labels

    run = automatic(
        session,
        [session.grid.name(plane) for plane in search.planes],
        region=search.region,
        tile=side,
        link=search.link,
        min_area=search.min_area,
        max_area=search.max_area,
        next_id=next_id,
        find=find,
    )
    yield Step(0, total)
    with closing(run), suppress(Stopped):  # type: ignore[type-var]
        for done, total in run:
            objects, acts = before
            found |= session.state.objects.keys() - objects.keys()
            before = session.state.objects, len(session.history.done)
            yield Step(done, total, None if before[1] != acts else (), len(found))
