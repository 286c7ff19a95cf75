"""Everything on some planes of a session, found without prompts, as objects of the session.

What is found on a plane is linked with the planes before it, and written as soon as its numbers are certain.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.linking import Linker
from sam2_core.volume.session_state import Plane

if TYPE_CHECKING:
    from sam2_core.predict.automatic_tiles import Box
    from sam2_core.volume.session import Session

Find = Callable[[np.ndarray], np.ndarray]
"""Gives the labels, (h, w) unsigned integers, of an image, (h, w) or (h, w, 3) as `PlaneSource.frame` gives it."""

COVERED = 0.5
"""What is found is left out on a plane if more than this part of it belongs to objects that were there before."""


def automatic(
    session: Session,
    planes: Iterable[int | Mapping[str, int]],
    *,
    region: Box | None = None,
    tile: int | Literal["model"] | None = None,
    overlap: int | None = None,
    link: bool = True,
    min_iou: float = 0.25,
    min_area: int = 0,
    max_area: int | None = None,
    name: str | None = None,
    next_id: Callable[[int], int] | None = None,
    find: Find | None = None,
    **settings: Any,
) -> Iterator[tuple[int, int]]:
    """Find everything on some planes and add it to a session.

    Labels that are there stay as they are. Each new object has its mask as a prompt on the first plane that it is seen
    on, so that it can be propagated from there. A plane takes one act that can be undone, or two if objects begin and
    go on there. Objects that are deleted on the way are not painted again.

    Parameters
    ----------
    session : Session
    planes : iterable of frames
        As in `Session.add_prompt`; they are visited in the order of the volume. Linking follows this list: its
        planes should be neighbours.
    region : (int, int, int, int), optional
        x0, y0, x1, y1 in pixels, x1 and y1 exclusive: only there.
    tile : int, "model" or None
        Side of the tiles in which a plane is searched, in pixels; "model" is the model's input size. By default a
        plane is searched as a whole.
    overlap : int, optional
        Of tiles, in pixels; a quarter of their side by default.
    link : bool
        Objects go on from plane to plane, in a 3D time-lapse through each time point and then from time point to time
        point; without it each plane has objects of its own.
    min_iou : float
        Least IoU of what is linked.
    min_area, max_area : int, optional
        What has fewer or more pixels on a plane is left out there.
    name : str, optional
        Objects are called "NAME 12"; each then takes an act of its own.
    next_id : callable, optional
        Gives the id of a new object, which must be above the id that it is given; by default the next one.
    find : callable, optional
        What finds labels in an image, by default automatic masks by the session's model.
    **settings
        Of `SAM2AutomaticMaskGenerator`, if `find` is not given.

    Returns
    -------
    iterator of (int, int)
        Tiles done and to do. Nothing is computed before it is asked for; close it to stop, what is written stays.

    Raises
    ------
    InputError
        If a plane does not exist, the region is empty, tiles do not overlap, or time points to be linked have not the
        same planes.
    """
    from sam2_core.predict.automatic_tiles import tile_boxes

    chosen = _in_order(session, planes)
    depth = _depth(chosen) if link else 1
    height, width = session.grid.size
    x0, y0, x1, y1 = (0, 0, width, height) if region is None else (int(v) for v in region)
    window = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
    size = window[0].stop - window[0].start, window[1].stop - window[1].start
    if min(size) < 1:
        raise InputError(f"the region {x0},{y0},{x1},{y1} holds no pixel of a frame of {width} x {height}: move it")
    if isinstance(tile, int):
        tile_boxes(size, tile, overlap)

    def run() -> Iterator[tuple[int, int]]:
        finder = find or label_finder(session.predictor, **settings)
        side = session.predictor.model.image_size if tile == "model" else tile
        boxes = [(0, 0, size[1], size[0])] if side is None else tile_boxes(size, side, overlap)
        linker = Linker(depth, min_iou=min_iou if link else math.inf)
        writer = _Writer(session, name, next_id or (lambda above: above + 1))
        waiting: deque[Plane] = deque()
        total = len(chosen) * len(boxes)
        for number, (plane, (source, index)) in enumerate(zip(chosen, session.places(chosen))):
            image = source.frame(index)
            ids = np.zeros(session.grid.size, np.uint32)
            before = number * len(boxes)
            found = yield from _search(image[window], boxes, finder, before, total)
            taken = session.read_labels(dict(plane) or 0)[window] > 0
            ids[window] = _free(sized(found, min_area, max_area), taken)
            waiting.append(plane)
            for linked in linker.add(ids):
                writer.write(waiting.popleft(), linked)
            yield before + len(boxes), total

    return run()


def label_finder(predictor: Any, progress: Callable[[int, int], object] | None = None, **settings: Any) -> Find:
    """A `Find` by a predictor's model; `settings` are of `SAM2AutomaticMaskGenerator`, `progress` of its calls."""
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

    return partial(SAM2AutomaticMaskGenerator(predictor.model, **settings).generate_labels, progress=progress)


def sized(labels: np.ndarray, low: int, high: int | None) -> np.ndarray:
    """Labels without those of fewer than `low` or more than `high` pixels, numbered from 1 again."""
    areas = np.bincount(labels.ravel())
    return _only(labels, (areas >= max(low, 1)) & (areas <= (high or labels.size)))


class _Writer:
    """Writes linked planes as objects of a session."""

    def __init__(self, session: Session, name: str | None, next_id: Callable[[int], int]) -> None:
        self._session = session
        self._name = name
        self._next_id = next_id
        self._ids: dict[int, int] = {}  # by the linker's number
        self._last = 0  # the highest id in use, as far as is known

    def write(self, plane: Plane, linked: np.ndarray) -> None:
        """Add what `linked` (h, w) holds to a plane, where nothing is."""
        session, frame = self._session, dict(plane) or 0
        with session.acting():
            old = session.read_labels(frame)
            linked = np.where(old == 0, linked, np.uint32(0))
            numbers = [n for n in np.unique(linked).tolist() if n]
            new = [n for n in numbers if n not in self._ids]
            self._last = max(self._last, int(old.max()), *session.state.objects)
            for n in new:
                self._last = self._next_id(self._last)
                self._ids[n] = self._last
                if self._name is not None:
                    session.add_object(self._last, name=f"{self._name} {self._last}")
            if new:
                old = self._painted(old, linked, new)
                session.paint(frame, old, correct=True)
            going_on = [n for n in numbers if n not in new and self._ids[n] in session.state.objects]
            if going_on:
                session.paint(frame, self._painted(old, linked, going_on))

    def _painted(self, old: np.ndarray, linked: np.ndarray, numbers: list[int]) -> np.ndarray:
        table = np.zeros(int(linked.max()) + 1, np.uint32)
        table[numbers] = [self._ids[n] for n in numbers]
        return np.where(np.isin(linked, numbers), table[linked], old)


def _search(
    image: np.ndarray, boxes: list[Box], find: Find, before: int, total: int
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Labels of an image; the progress after each tile but the last, which counts when the plane is written."""
    from sam2_core.predict.automatic_tiles import stitch

    tiles = []
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        if number:
            yield before + number, total
        tiles.append(find(image[y0:y1, x0:x1]))
    return tiles[0] if len(boxes) == 1 else stitch(image.shape[:2], boxes, tiles)


def _in_order(session: Session, frames: Iterable[int | Mapping[str, int]]) -> list[Plane]:
    planes = {session.plane(frame) for frame in frames}
    if not planes:
        raise InputError("there is no plane to search: give at least one")
    return sorted(planes, key=lambda plane: [i for _, i in plane])


def _depth(planes: list[Plane]) -> int:
    """Planes at each time point, if several time points of several planes are to be linked; else 1."""
    stacks: dict[tuple[int, ...], list[int]] = {}
    for plane in planes:
        *outer, inner = [i for _, i in plane] or [0]
        stacks.setdefault(tuple(outer), []).append(inner)
    first = next(iter(stacks.values()))
    if len(stacks) == 1:
        return 1
    if any(stack != first for stack in stacks.values()):
        raise InputError("time points that are to be linked must have the same planes: give the same of each")
    return len(first)


def _free(labels: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Labels where nothing is, without those that are mostly covered."""
    areas = np.bincount(labels.ravel())
    hidden = np.bincount(labels[taken], minlength=len(areas))
    return np.where(taken, np.uint32(0), _only(labels, (areas > 0) & (hidden <= COVERED * areas)))


def _only(labels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The labels for which `keep` is true, numbered 1, 2, ..."""
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.uint32)[labels]
