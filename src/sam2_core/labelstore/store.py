"""The store itself: items are added, listed and opened.

    STORE/store.json                           what it is
    STORE/items/ITEM/v000001/item.json         one version of an item: see `records`
                            /labels.zarr       its labels, OME-Zarr
                            /image.*           its image, where a copy is kept
    STORE/snapshots/NAME/snapshot.json
    STORE/splits/v000001/split.json
    STORE/incoming/                            what is being written

Nothing that has a name is ever changed (see `publish`), so any number of processes may write and read at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.labelstore.copying import Progress, copy_labels, place_image
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.publish import digest_of, incoming, publish, version_name, versions
from sam2_core.labelstore.records import (
    ImageReference,
    ItemRecord,
    LabelledThing,
    Provenance,
    check_name,
    now,
    read_record,
)
from sam2_core.labelstore.snapshots import Snapshot, SnapshotEntry, read_snapshot, snapshot_names, write_snapshot
from sam2_core.labelstore.splits import Part, extend_split, place, read_split
from sam2_core.volume.files import beside, disk_errors
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.volume import Volume

_MARKER = {"format": "sam2-labelstore", "version": 1}
_LABELS = "labels.zarr"
_RECORD = "item.json"
_CONTENT = ("image", "labels_sha256", "plane_states", "objects", "group")


@dataclass(frozen=True)
class ItemVersion:
    """One version of an item, as it lies in `folder`."""

    folder: Path

    @cached_property
    def record(self) -> ItemRecord:
        """What is known about it."""
        return read_record(self.folder / _RECORD)

    @property
    def item(self) -> str:
        """Name of the item."""
        return self.folder.parent.name

    @property
    def version(self) -> int:
        """Number of the version, from 1."""
        return int(self.folder.name[1:])

    @property
    def digest(self) -> str:
        """SHA-256 of the record, which holds those of image and labels."""
        return hashlib.sha256((self.folder / _RECORD).read_bytes()).hexdigest()

    @property
    def image_path(self) -> Path:
        """Where the image should be."""
        return self.folder / self.record.image.path  # an absolute path stays as it is

    def open_labels(self) -> LabelVolume:
        """The labels, read-only."""
        return LabelVolume.open(self.folder / _LABELS)

    def open_image(self) -> Volume:
        """The image, at the level that was labelled; a copy in the store with the scale of its labels.

        Raises
        ------
        InputError
            It is no longer where it was, or has another size.
        """
        image = self.record.image
        if not self.image_path.exists():
            raise InputError(f"the image of {self.item} is gone: {self.image_path} does not exist; put it back there")
        scale = translation = None
        if image.copied:  # of an image in memory only the pixels were copied
            labels = self.open_labels().volume
            scale, translation = labels.scale, labels.translation
        volume = open_volume(self.image_path, axes=image.axes, level=image.level, scale=scale, translation=translation)
        _check_grid(self.record.axes, self.record.shape, volume, f"the labels of {self.item}")
        return volume

    def changed(self) -> list[str]:
        """What no longer has the checksum of its record: "image", "labels"; reads every byte of both."""
        found = []
        image = self.image_path
        if not image.exists() or digest_of(image, ("labels",)) != self.record.image.sha256:
            found.append("image")
        if digest_of(self.folder / _LABELS) != self.record.labels_sha256:
            found.append("labels")
        return found


class LabelStore:
    """A folder of labelled images, local or on a shared file system.

    Parameters
    ----------
    path : path
        A folder that `create` made.

    Raises
    ------
    InputError
        `path` is no label store.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path).expanduser().absolute()
        try:
            marker = json.loads((self.path / "store.json").read_text())
        except FileNotFoundError:
            raise InputError(
                f"{path} is no label store: make one with sam2 labels add --store {path} --image … --labels …"
            ) from None
        except (ValueError, NotADirectoryError):
            marker = {}
        if not isinstance(marker, dict) or marker.get("format") != _MARKER["format"]:
            raise InputError(f"{path} is no label store")
        if marker.get("version") != _MARKER["version"]:
            raise InputError(f"{path} is a label store of version {marker.get('version')}, made by a newer release")

    @classmethod
    def create(cls, path: str | os.PathLike) -> LabelStore:
        """Open a store, and make it if `path` does not exist or is an empty folder.

        Raises
        ------
        InputError
            `path` holds something else, or cannot be written.
        """
        folder = Path(path).expanduser().absolute()
        marker = folder / "store.json"
        if not marker.exists():
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                if (
                    any(not entry.name.startswith(".store.json.") for entry in os.scandir(folder))
                    and not marker.exists()
                ):
                    raise InputError(f"{folder} is not empty and no label store: choose another folder")
                partial = beside(marker)
                partial.write_text(json.dumps(_MARKER))
                partial.replace(marker)
        return cls(folder)

    def add(
        self,
        image: Any,
        labels: Any,
        *,
        item: str | None = None,
        axes: str | None = None,
        label_axes: str | None = None,
        level: int = 0,
        channel: int | tuple[int, ...] | None = None,
        window: tuple[float, float] | None = None,
        coverage: Coverage | PlaneState = PlaneState.complete,
        objects: Mapping[int, LabelledThing] | None = None,
        group: str | None = None,
        provenance: Provenance | None = None,
        copy_image: bool = False,
        if_changed: bool = False,
        progress: Progress | None = None,
    ) -> ItemVersion:
        """Add a labelled image: a new item, or a new version of the item of that name.

        Parameters
        ----------
        image : path or array
            Anything `open_volume` takes. An array is copied into the store; a file is referred to by its path and
            SHA-256, unless `copy_image`.
        labels : path, array or LabelVolume
            Object ids on the grid of the image; 0 is background, or unknown where `coverage` is not complete.
        item : str, optional
            By default made from the image's name and content, so that labelling an image again makes a new version.
        axes, label_axes : str, optional
            Axes of image and labels where the files do not say; `label_axes` are by default those of the image
            without c.
        level, channel, window
            What of the image was shown when it was labelled.
        coverage : Coverage or PlaneState
            Which planes are labelled, or one state for all.
        objects : mapping of int to LabelledThing, optional
            Names and classes by object id.
        group : str, optional
            What must not be split between training and validation: a patient, a plate, a movie.
        provenance : Provenance, optional
        copy_image : bool
        if_changed : bool
            Make no new version if the newest has the same image, labels, coverage, objects and group; it is returned.
        progress : callable, optional

        Raises
        ------
        InputError
            Image and labels differ in size, the labels are no ids, or the disk is full or cannot be written.
        """
        volume = open_volume(image, axes=axes, level=level)
        grid = volume.axes.replace("c", "")
        source = labels.volume if isinstance(labels, LabelVolume) else _open_labels(labels, label_axes, grid)
        _check_grid(source.axes, source.shape, volume, source.name)
        if isinstance(coverage, PlaneState):
            coverage = Coverage.uniform(source.axes, source.shape, coverage)
        coverage.check(source.axes, source.shape)
        with incoming(self.path) as folder:
            path, digest, copied = place_image(volume, folder, copy_image)
            if item is None:
                item = f"{_slug(volume.name)}-{digest[:8]}"
            check_name(item, "an item")
            copy_labels(source, folder / _LABELS, volume, progress)
            fields: dict[str, Any] = {
                "item": item,
                "created": now(),
                "image": ImageReference(
                    path=path, sha256=digest, copied=copied, axes=None if copied and volume.path is None else axes,
                    level=level, channel=channel, window=window,
                ),
                "axes": source.axes,
                "shape": source.shape,
                "labels_sha256": digest_of(folder / _LABELS),
                "plane_states": coverage.to_json(),
                "objects": dict(objects or {}),
                "group": group,
                "provenance": provenance or Provenance(),
            }  # fmt: skip
            home = self.path / "items" / item
            number = (versions(home) or [0])[-1]
            if if_changed and number:
                newest = ItemVersion(home / version_name(number))
                if all(getattr(newest.record, name) == fields[name] for name in _CONTENT):
                    return newest
            while True:
                number += 1
                record = ItemRecord(version=number, **fields)
                (folder / _RECORD).write_text(record.model_dump_json(indent=1))
                if publish(folder, home / version_name(number)):
                    return ItemVersion(home / version_name(number))

    def items(self) -> list[ItemVersion]:
        """The newest version of every item, by name."""
        home = self.path / "items"
        names = sorted(os.listdir(home)) if home.is_dir() else []
        newest = ((name, versions(home / name)) for name in names)
        return [ItemVersion(home / name / version_name(numbers[-1])) for name, numbers in newest if numbers]

    def get(self, item: str, version: int | None = None) -> ItemVersion:
        """A version of an item, the newest by default.

        Raises
        ------
        InputError
            There is none.
        """
        home = self.path / "items" / check_name(item, "an item")
        numbers = versions(home)
        if not numbers:
            raise InputError(f"{self.path} has no item {item}: sam2 labels list shows what there is")
        if version is not None and version not in numbers:
            raise InputError(f"{item} has the versions {', '.join(map(str, numbers))}, not {version}")
        return ItemVersion(home / version_name(version or numbers[-1]))

    def versions(self, item: str) -> list[ItemVersion]:
        """All versions of an item, oldest first."""
        home = self.get(item).folder.parent
        return [ItemVersion(home / version_name(n)) for n in versions(home)]

    def parts(self) -> dict[str, Part]:
        """The part of every item that was given one by `split`."""
        known = read_split(self.path)
        return {v.item: known[v.record.split_key] for v in self.items() if v.record.split_key in known}

    def split(self, validation: float = 0.15, test: float = 0.0) -> dict[str, Part]:
        """Give every item that has none a part, those of a group the same one; gives the part of each item."""
        extend_split(self.path, [v.record.split_key for v in self.items()], validation, test)
        return self.parts()

    def place(self, part: str, items: Iterable[str] = (), groups: Iterable[str] = ()) -> list[ItemVersion]:
        """Put items into a part, whichever they were in; `split` leaves them there.

        Parameters
        ----------
        part : {"train", "validation", "test"}
        items, groups : iterable of str
            Names. Of an item that has a group, the whole group goes with it.

        Returns
        -------
        list of ItemVersion
            All items that are in the part because of this, by name.

        Raises
        ------
        InputError
            There is no such item, group or part.
        """
        known = self.items()
        by_name = {v.item: v.record.split_key for v in known}
        keys = set()
        for name in items:
            if name not in by_name:
                raise InputError(f"{self.path} has no item {name}: sam2 labels list shows what there is")
            keys.add(by_name[name])
        of_groups = {v.record.group: v.record.split_key for v in known if v.record.group}
        for name in groups:
            if name not in of_groups:
                raise InputError(f"{self.path} has no group {name}: sam2 labels list shows what there is")
            keys.add(of_groups[name])
        place(self.path, keys, part)
        return [v for v in known if v.record.split_key in keys]

    def snapshot(self, name: str) -> Snapshot:
        """Keep a named list of the newest version of every item, with its part."""
        known = read_split(self.path)
        return write_snapshot(
            self.path,
            name,
            [
                SnapshotEntry(item=v.item, version=v.version, digest=v.digest, part=known.get(v.record.split_key))
                for v in self.items()
            ],
        )

    def snapshots(self) -> list[str]:
        """Names of all snapshots."""
        return snapshot_names(self.path)

    def open_snapshot(self, name: str) -> list[tuple[ItemVersion, Part | None]]:
        """The item versions of a snapshot, and the part of each.

        Raises
        ------
        InputError
            There is no such snapshot, or an item of it is gone or was changed.
        """
        found = []
        for entry in read_snapshot(self.path, name).entries:
            version = self.get(entry.item, entry.version)
            if version.digest != entry.digest:
                raise InputError(f"{version.folder} was changed after the snapshot {name} was taken")
            found.append((version, entry.part))
        return found


def _open_labels(labels: Any, axes: str | None, grid: str) -> Volume:
    if isinstance(labels, str | os.PathLike) and (Path(labels).expanduser() / "labels").is_dir():
        return LabelVolume.open(labels).volume
    volume = open_volume(labels, axes=axes)
    if axes is None and volume.axes != grid and volume.ndim == len(grid):
        volume = open_volume(labels, axes=grid)
    if "c" in volume.axes or volume.dtype.kind not in "uib":
        raise InputError(f"{volume.name} holds {volume.dtype} {volume.axes}: labels are integers without channels")
    return volume


def _check_grid(axes: str, shape: tuple[int, ...], image: Volume, what: str) -> None:
    grid = image.axes.replace("c", "")
    sizes = tuple(image.size(a) for a in grid)
    if (axes, tuple(shape)) != (grid, sizes):
        raise InputError(
            f"{what} is {axes} {tuple(shape)} but the image {image.name} is {grid} {sizes}:"
            " labels must have the size of the image"
        )


def _slug(name: str) -> str:
    stem = name
    while (shorter := re.sub(r"\.(zarr|ome|tiff?|nii|gz|png|jpe?g|dcm|mp4|avi|mov)$", "", stem, flags=re.I)) != stem:
        stem = shorter
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")
    return slug[:80] or "image"
