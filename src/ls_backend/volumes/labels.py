"""What was labelled in the tasks of a volume, brought together as a label volume on the grid of the volume itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ls_backend.volumes.linking import Fixed, Place, joined
from ls_backend.volumes.tasks import VolumeTask
from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.label_studio_regions import region_kind, region_labels, region_mask
from sam2_core.labelstore.records import LabelledThing, Provenance
from sam2_core.labelstore.store import ItemVersion, LabelStore
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.volume import Volume


@dataclass(frozen=True)
class Shown:
    """What tasks whose labels go into one label volume have in common: its grid, the axis, the channels."""

    path: str
    axes: str | None
    level: int
    axis: str | None
    channels: tuple[int, ...]

    @classmethod
    def of(cls, task: VolumeTask) -> Shown:
        """What a task shows."""
        s = task.series
        return cls(s.path, s.axes, s.level, s.axis, s.channels)

    def __str__(self) -> str:
        channels = ", ".join(map(str, self.channels))
        along = f", along {self.axis}" if self.axis else ""
        return f"{self.path}, level {self.level}{along}, channel {channels}"


@dataclass(frozen=True, eq=False)
class Gathered:
    """The labels of a volume.

    Attributes
    ----------
    labels : LabelVolume
    coverage : Coverage
        Which planes were labelled.
    objects : dict of int to LabelledThing
    """

    labels: LabelVolume
    coverage: Coverage
    objects: dict[int, LabelledThing]


class VolumeLabels:
    """Gathers the labels of a volume, one task after the other.

    In memory are one task's regions and one plane; the rest is on disk.

    Parameters
    ----------
    task : VolumeTask
        One of the tasks; all have to show the same (see `Shown`).
    scratch : path
        An empty folder for what is not done yet.

    Raises
    ------
    InputError
        The volume is gone, or the disk cannot be written.
    """

    def __init__(self, task: VolumeTask, scratch: str | os.PathLike) -> None:
        self._shown = Shown.of(task)
        self._volume = task.series.open()
        self._axis = task.series.axis
        height, width = (self._volume.size(a) for a in self._volume.plane_axes(self._axis))
        self._size = height, width
        self._numbers: dict[tuple[str, str, str | None], int] = {}
        self._states: dict[Place, PlaneState] = {}
        self._step = 1
        self._regions = LabelVolume.create(Path(scratch) / "regions.zarr", self._volume, axis=self._axis)

    @property
    def volume(self) -> Volume:
        """The volume that is labelled."""
        return self._volume

    def add(self, task: VolumeTask, result: Sequence[dict[str, Any]], state: PlaneState = PlaneState.complete) -> None:
        """Take in the annotation of a task; a plane that another task had as well is replaced.

        Where regions of a plane overlap, later ones lie above. Rectangles are prompts and no outlines: they are left
        out, and a plane that has one is labelled in part.

        Parameters
        ----------
        task : VolumeTask
        result : sequence of dict
            The regions, as Label Studio gives them.
        state : PlaneState
            How far the planes are labelled.

        Raises
        ------
        InputError
            A region is damaged, or is on an image that the task has not.
        """
        if Shown.of(task) != self._shown:
            raise InputError(f"task {task.task} does not show {self._shown}")
        keys = _keys(result)
        by_item: dict[int, list[tuple[dict[str, Any], str | None]]] = {item: [] for item in range(len(task.planes))}
        for region, class_name in zip(result, region_labels(result)):
            if region_kind(region) is None:
                continue
            item = region.get("item_index") or 0
            if item not in by_item:
                raise InputError(f"task {task.task} has {len(task.planes)} images, and a region on image {item}")
            by_item[item].append((region, class_name))
        fixed = task.series.fixed
        for item, regions in by_item.items():
            ids = np.zeros(self._size, np.uint32)
            boxes = False
            for region, class_name in regions:
                if region_kind(region) == "rectangle":
                    boxes = True
                    continue
                thing = str(task.task), keys[str(region.get("id"))], class_name
                number = self._numbers.setdefault(thing, len(self._numbers) + 1)
                try:
                    ids[region_mask(region, self._size)] = number
                except InputError as error:
                    raise InputError(f"task {task.task}, region {region.get('id')}: {error}") from None
            place = fixed, task.planes[item]
            self._regions.write_plane(self._axis, place[1], ids, dict(fixed))
            self._states[place] = min(state, PlaneState.partial) if boxes else state
        if len(task.planes) > 1:
            self._step = max(self._step, int(np.diff(sorted(task.planes)).max()))

    def finish(self, out: str | os.PathLike, *, link: bool = True, overwrite: bool = False) -> Gathered:
        """Write the label volume.

        Parameters
        ----------
        out : path
            As `LabelVolume.create` takes it.
        link : bool
            Make regions that overlap on neighbouring planes one object.
        overwrite : bool
            Replace an existing label volume.

        Raises
        ------
        InputError
            `out` exists and may not be replaced, or cannot be written.
        """
        classes = {number: name for (_, _, name), number in self._numbers.items()}
        places = sorted(self._states)
        objects = {number: number for number in classes}
        if link:
            objects = joined(self._regions, self._axis, places, classes, step=self._step)
        labels = LabelVolume.create(out, self._volume, axis=self._axis, overwrite=overwrite)
        final = np.zeros(len(classes) + 1, np.uint32)  # by number; 0 as long as it was not met
        things: dict[int, LabelledThing] = {}
        for fixed, index in places:
            plane = self._regions.read_plane(self._axis, index, dict(fixed))
            for number in np.unique(plane[plane > 0]).tolist():
                head = objects[number]
                if not final[head]:
                    things[len(things) + 1] = LabelledThing(class_name=classes[number])
                    final[head] = len(things)
                final[number] = final[head]
            labels.write_plane(self._axis, index, final[plane], dict(fixed))
        labels.set_names({i: thing.class_name for i, thing in things.items() if thing.class_name})
        return Gathered(labels, self._coverage(), things)

    def _coverage(self) -> Coverage:
        labels = self._regions
        coverage = Coverage.uniform(labels.axes, labels.shape, PlaneState.none)
        if self._axis is None or self._axis in coverage.axes:
            for (fixed, index), state in self._states.items():
                where = {**dict(fixed), **({self._axis: index} if self._axis else {})}
                coverage.states[tuple(where[a] for a in coverage.axes)] = state
            return coverage
        # planes across y or x: of the planes across z, of which coverage is told, each is done as far as all are
        by_fixed: dict[Fixed, list[PlaneState]] = {}
        for (fixed, _), state in self._states.items():
            by_fixed.setdefault(fixed, []).append(state)
        for fixed, states in by_fixed.items():
            whole = len(states) == labels.volume.size(self._axis) and min(states) == PlaneState.complete
            where = dict(fixed)
            at = tuple(where.get(a, slice(None)) for a in coverage.axes)
            coverage.states[at] = PlaneState.complete if whole else PlaneState.partial
        return coverage


def add_to_store(
    store: LabelStore, task: VolumeTask, gathered: Gathered, *, group: str | None, provenance: Provenance
) -> ItemVersion:
    """Add the labels of a volume to a label store, which refers to the volume itself; unchanged ones only once.

    Parameters
    ----------
    store : LabelStore
    task : VolumeTask
        One of the tasks in which the volume was labelled.
    gathered : Gathered
    group : str or None
        What must not be split; by default all that comes from this volume.
    provenance : Provenance

    Raises
    ------
    InputError
        The volume is gone, or the disk cannot be written.
    """
    series = task.series
    return store.add(
        series.path,
        gathered.labels,
        axes=series.axes,
        level=series.level,
        channel=series.channels[0] if len(series.channels) == 1 else series.channels,
        window=series.windows[0] if len(set(series.windows)) == 1 else None,
        coverage=gathered.coverage,
        objects=gathered.objects,
        group=group or series.path,  # as the items that webhooks make of single tasks
        provenance=provenance,
        if_changed=True,
    )


def _keys(result: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What the regions of one object have in common, by their ids.

    It is the key that the server gave those that it carried through the planes, else the region that others are
    nested in, else the region's own id. Two masks of one key on one image are two objects that were made alike;
    polygons are the parts of one.
    """
    parents = {str(r["id"]): str(r["parentID"]) for r in result if r.get("id") and r.get("parentID")}
    given: dict[str, str] = {}
    taken: Counter[tuple[str, int]] = Counter()
    for region in result:
        meta, own = region.get("meta"), str(region.get("id"))
        if isinstance(meta, dict) and isinstance(meta.get("sam2"), str) and own not in given:
            place = meta["sam2"], region.get("item_index") or 0
            taken[place] += not (taken[place] and region_kind(region) == "polygon")
            given[own] = f"object {meta['sam2']} {taken[place]}"
    found: dict[str, str] = {}
    for region in result:
        own = root = str(region.get("id"))
        seen = {own}
        while root not in given and root in parents and parents[root] not in seen:
            root = parents[root]
            seen.add(root)
        found[own] = given.get(root, f"region {root}")
    return found
