"""The label pool: what a session has labelled goes into a label store, from which models are trained.

`add_session` puts it there, `default_store` is where, `summarise` says what a store holds. Nothing here needs Qt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core import __version__
from sam2_core.errors import InputError
from sam2_core.labelstore import Coverage, ItemVersion, LabelledThing, LabelStore, Provenance
from sam2_core.labelstore.copying import Progress
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.labelstore.records import Status
from sam2_core.volume import journal as journals
from sam2_core.volume.files import write_json
from sam2_core.volume.session_state import Grid, Plane, SessionObject
from sam2_core.weights.download import sha256_of
from sam2_core.weights.table import find_checkpoint

if TYPE_CHECKING:
    from sam2_core.volume.session import Session

TOOL = "napari-sam2"
ITEMS = "label-items.json"
"""File of a session: the item that it is, by the path of the store."""


@dataclass(frozen=True)
class StoreSummary:
    """How much a store holds: items, and the objects that their records list; some items may list none."""

    items: int
    objects: int
    unlisted: int

    def __str__(self) -> str:
        text = f"{self.items} item{'s' * (self.items != 1)}, {self.objects} labelled object{'s' * (self.objects != 1)}"
        return text + (f", and those of {self.unlisted} without a list" if self.unlisted else "")


def default_store() -> Path:
    """The store that is used unless the user chooses another: `labels` in the platform's folder for user data."""
    from platformdirs import user_data_path

    return user_data_path("napari-sam2", appauthor=False) / "labels"


def summarise(store_path: str | Path) -> StoreSummary:
    """Count the items of a store and their objects; reads the record of each item.

    Raises
    ------
    InputError
        There is no store, or a record is damaged.
    """
    counts = [len(version.record.objects) for version in LabelStore(store_path).items()]
    return StoreSummary(len(counts), sum(counts), counts.count(0))


def add_session(
    store_path: str | Path,
    session: Session,
    *,
    item: str | None = None,
    group: str | None = None,
    annotator: str | None = None,
    complete: Iterable[int | Mapping[str, int]] = (),
    copy_image: bool = False,
    progress: Progress | None = None,
) -> ItemVersion:
    """Put the labels of a session into a store, which is made if there is none.

    A session is one item of a store, of which each call makes a new version. The labels are read plane by plane
    while the session goes on; what changes meanwhile may be in them or not.

    Parameters
    ----------
    store_path : path
    session : Session
    item : str, optional
        Name of the item, by default the one that the session has in this store already, else made from the image.
    group : str, optional
        What must not be split between training and validation; by default that of the version before.
    annotator : str, optional
        Who labelled.
    complete : iterable of int or mapping
        Frames, as prompts name them, on which every object is labelled. Those with prompts or corrections are partly
        labelled, and all others not at all, whatever was tracked there.
    copy_image : bool
        Copy the image, rather than refer to its file; an image in memory is always copied.
    progress : callable, optional
        Called with the planes that are written and their number.

    Returns
    -------
    ItemVersion

    Raises
    ------
    InputError
        The store cannot be made or written, the image is gone, or there is no such frame.
    """
    store = LabelStore.create(store_path)
    with session.lock:
        objects = session.objects
        painted = _painted(session)
        whole = [session.plane(frame) for frame in complete]
    touched = {p.plane for thing in objects for p in thing.prompts} | painted
    settings = session.settings
    remembered = _remembered(session)
    item = item or remembered.get(str(store.path))
    version = store.add(
        session.volume if settings.image is None else settings.image,
        session.labels,
        item=item,
        axes=None if settings.image is None else settings.axes,
        level=settings.level,
        channel=settings.channel,
        window=settings.window,
        coverage=coverage(session.grid, session.labels.axes, session.labels.shape, touched, whole),
        objects={thing.id: LabelledThing(name=thing.name, class_name=thing.class_name) for thing in objects},
        group=group or _group(store, item),
        provenance=_provenance(session, objects, bool(painted), annotator),
        copy_image=copy_image,
        progress=progress,
    )
    write_json(session.directory / ITEMS, {**remembered, str(store.path): version.item})
    return version


def coverage(
    grid: Grid, axes: str, shape: tuple[int, ...], touched: Iterable[Plane], complete: Iterable[Plane]
) -> Coverage:
    """How far each (y, x) plane of labels is labelled, from planes that may lie across another axis.

    Parameters
    ----------
    grid : Grid
        Of the session.
    axes, shape
        Of the labels.
    touched, complete : iterable of Plane
        Planes of the grid that are partly and completely labelled.
    """
    states = Coverage.uniform(axes, shape, PlaneState.none)

    def place(plane: Plane) -> tuple[Any, ...]:
        known = dict(plane)
        return tuple(known.get(axis, slice(None)) for axis in states.axes)

    for plane in touched:
        states.states[place(plane)] = PlaneState.partial
    # a plane along z holds one line of each (y, x) plane, which is complete when all its lines are
    lines = grid.length(grid.axis) if grid.axis in ("y", "x") else 1
    found: dict[str, set[Plane]] = defaultdict(set)
    for plane in complete:
        where = place(plane)
        found[str(where)].add(plane)
        state = PlaneState.complete if len(found[str(where)]) == lines else PlaneState.partial
        states.states[where] = np.maximum(states.states[where], state)
    return states


def _painted(session: Session) -> set[Plane]:
    """The planes that the user corrected by hand."""
    found: set[Plane] = set()
    for entry in session.history.done:
        if entry.kind in ("paint", "split-object"):
            for _, record in journals.read(session.journal.path, entry.start, entry.end):
                found.update(tuple(change["at"].items()) for change in record.get("planes", ()))
    return found


def _remembered(session: Session) -> dict[str, str]:
    try:
        return dict(json.loads((session.directory / ITEMS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _group(store: LabelStore, item: str | None) -> str | None:
    try:
        return store.get(item).record.group if item else None
    except InputError:
        return None


def _provenance(session: Session, objects: Iterable[SessionObject], painted: bool, annotator: str | None) -> Provenance:
    objects = list(objects)
    status = _status(objects, painted)
    model = None if status == "drawn" else session.settings.model
    return Provenance(
        author=annotator,
        tool=TOOL,
        tool_version=__version__,
        status=status,
        model=model,
        model_sha256=_digest(model),
        prompts=tuple(_prompts(thing, session.grid) for thing in objects if thing.prompts),
    )


def _status(objects: list[SessionObject], painted: bool) -> Status:
    """Whether the model's answers were taken as they came; "drawn" where it was not asked."""
    placed = [(thing, p) for thing in objects for p in thing.prompts]
    asked = [p for _, p in placed if p.prompt.points or p.prompt.box or p.prompt.scribbles]
    if not asked:
        return "drawn"
    again = any(p.base is not None or len(thing.on(p.plane)) > 1 for thing, p in placed)
    return "corrected" if painted or again else "accepted"


def _prompts(thing: SessionObject, grid: Grid) -> dict[str, Any]:
    """An object as a prompts file has it."""
    known = {"id": thing.id, "name": thing.name, "class": thing.class_name, "colour": thing.colour}
    prompts = [
        {**p.prompt.model_dump(mode="json", exclude_none=True), "frame": grid.name(p.plane)} for p in thing.prompts
    ]
    return {**{key: value for key, value in known.items() if value is not None}, "prompts": prompts}


def _digest(model: str | None) -> str | None:
    """SHA-256 of a model's file; None if it is not here."""
    if model is None:
        return None
    path = Path(model).expanduser()
    if path.is_file():
        return sha256_of(path)
    try:
        checkpoint = find_checkpoint(model)
    except InputError:
        return None
    return checkpoint.sha256 or (sha256_of(checkpoint.path) if checkpoint.path.is_file() else None)
