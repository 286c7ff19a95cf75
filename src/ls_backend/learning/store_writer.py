"""Items of the label store that tasks of Label Studio become: written, and emptied when their labels are taken back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ls_backend.learning.state import Project, TaskRecord
from ls_backend.learning.task_items import MasksFor, digest_of_annotation, make_item
from ls_backend.regions.label_config import ObjectTag
from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.records import Provenance
from sam2_core.labelstore.store import ItemVersion, LabelStore

if TYPE_CHECKING:
    from ls_backend.volumes.tasks import VolumeTask

TOOL = "label-studio"
"""Of the provenance of what is written here."""


class StoreWriter:
    """Writes items. Writing the same again makes no new version.

    Parameters
    ----------
    store : LabelStore
    masks_for : callable, optional
        Gives the masks that were tracked in videos.
    is_partial : bool
        Annotators do not label everything that is to be seen.
    max_pixels : int
        Of an image.
    """

    def __init__(self, store: LabelStore, masks_for: MasksFor | None, is_partial: bool, max_pixels: int) -> None:
        self._store = store
        self._masks_for = masks_for
        self._is_partial = is_partial
        self._max_pixels = max_pixels

    def version(self, record: TaskRecord) -> ItemVersion | None:
        """What the store has of a task; None if it has nothing (any more)."""
        if record.item is None or record.version is None:
            return None
        try:
            return self._store.get(record.item, record.version)
        except InputError:
            return None

    def is_lost(self, record: TaskRecord) -> bool:
        """Whether the store no longer has what it should have."""
        return record.digest is not None and self.version(record) is None

    def digest(self, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
        """SHA-256 of all that an item is made of."""
        return digest_of_annotation(task, annotation, self._is_partial)

    def put(
        self,
        name: str,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        tag: ObjectTag,
        source: Sequence[Path] | VolumeTask | ItemVersion,
    ) -> ItemVersion:
        """Write the item of a task; the parameters and errors are those of `make_item` and `LabelStore.add`."""
        item = make_item(
            task,
            annotation,
            tag,
            source,
            max_pixels=self._max_pixels,
            masks_for=self._masks_for,
            is_partial=self._is_partial,
        )
        return self._store.add(
            item.image.volume,
            item.labels,
            item=name,
            label_axes=item.image.axes,
            window=item.image.window,
            coverage=item.coverage,
            objects=item.objects,
            group=item.group,
            provenance=item.provenance,
            copy_image=True,
            if_changed=True,
        )

    def take_back(self, version: ItemVersion) -> ItemVersion:
        """A version without labels, which training passes over.

        If the newest version was made elsewhere, the labels are no longer Label Studio's, and that one stays.

        Raises
        ------
        InputError
            The image is gone, or the disk cannot be written.
        """
        import dask.array as da

        newest = self._store.get(version.item)
        if newest.record.provenance.tool != TOOL:
            return newest
        record = version.record
        chunks = (*(1,) * (len(record.shape) - 2), *record.shape[-2:])
        return self._store.add(
            version.open_image(),
            da.zeros(record.shape, dtype="uint32", chunks=chunks),
            item=version.item,
            label_axes=record.axes,
            window=record.image.window,
            coverage=Coverage.uniform(record.axes, record.shape, PlaneState.none),
            group=record.group,
            provenance=Provenance(tool=TOOL),
            copy_image=True,
            if_changed=True,
        )


def item_name(server: str, project: Project, task: int) -> str:
    """The same for a task of a project for ever, and another for one of another server or project of that number."""
    digest = hashlib.sha256(f"{server} {project.id} {project.created}".encode()).hexdigest()
    return f"{TOOL}-p{project.id}-t{task}-{digest[:8]}"
