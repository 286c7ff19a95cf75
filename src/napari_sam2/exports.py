"""The labels of a session as files of other programs, while the session goes on.

An export may take minutes, in which the user goes on to click: so the stored labels are first copied, compressed as
they are, and the file is written from the copy, beside its place, and renamed when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.export import EXPORTS
from sam2_core.volume.files import disk_errors, replacing
from sam2_core.volume.labels import LabelVolume, is_label_volume
from sam2_core.volume.session import Session
from sam2_core.volume.stored import StoredArray
from sam2_core.volume.volume import Volume

Told = Callable[[float], None]
"""Given the part, in [0, 1], that is done; what it raises ends the export."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    key : str
        Of `sam2_core.volume.export.EXPORTS`, or "zarr".
    title : str
        In the menu.
    suffixes : tuple of str
        What the name ends in, the usual one first; none for a folder.
    in_time : bool
        Whether there must be a time axis.
    """

    key: str
    title: str
    suffixes: tuple[str, ...]
    in_time: bool = False

    def complete(self, path: Path) -> Path:
        """The name with the usual ending, if it has none of the format's."""
        if not self.suffixes or path.name.lower().endswith(self.suffixes):
            return path
        return path.with_name(path.name + self.suffixes[0])


FORMATS = (
    Format("zarr", "OME-Zarr", (".zarr",)),
    Format("tiff", "TIFF", (".tif", ".tiff")),
    Format("nifti", "NIfTI", (".nii.gz", ".nii")),
    Format("coco", "COCO", (".json",)),
    Format("ctc", "Cell Tracking Challenge", (), in_time=True),
    Format("csv", "Statistics (CSV)", (".csv",)),
)


@dataclass
class Snapshot:
    """A copy of a session's labels, and what is known of its objects; it is deleted at the end of a `with` block.

    Attributes
    ----------
    labels : Path
    image : Volume
    names, classes : dict of int to str
        Of the objects that have one.
    """

    labels: Path
    image: Volume
    names: dict[int, str]
    classes: dict[int, str]
    _folder: TemporaryDirectory[str] = field(repr=False)

    @classmethod
    def take(cls, session: Session) -> Snapshot:
        """Copy what a session holds; no act may go on meanwhile.

        Raises
        ------
        InputError
            If the disk is full.
        """
        objects = list(session.state)
        with disk_errors(session.directory):
            folder = TemporaryDirectory(prefix="export-", dir=session.directory, ignore_cleanup_errors=True)
            labels = Path(folder.name) / session.labels.path.name
            try:
                shutil.copytree(session.labels.path, labels)
            except BaseException:
                folder.cleanup()
                raise
        names = {item.id: item.name for item in objects if item.name}
        classes = {item.id: item.class_name for item in objects if item.class_name}
        return cls(labels, session.volume, names, classes, folder)

    def close(self) -> None:
        """Delete the copy."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def export(kind: Format, snapshot: Snapshot, out: Path, told: Told = lambda part: None) -> None:
    """Write a snapshot as a file or folder; what is there is replaced if it is of the same kind.

    Parameters
    ----------
    kind : Format
    snapshot : Snapshot
    out : Path
    told : callable

    Raises
    ------
    InputError
        If the format cannot hold the labels, or `out` cannot be written.
    """
    if kind.key == "zarr":
        _copy(snapshot, out)
        return
    labels = LabelVolume.open(snapshot.labels)
    known: dict[str, Any] = {}
    if kind.key == "csv":
        known = {"image": snapshot.image, "names": snapshot.names, "classes": snapshot.classes}
    else:  # a class says what an object is; where there is none, its name has to do
        labels.names = {**snapshot.names, **snapshot.classes}
    twice = kind.key in ("ctc", "csv") and labels.volume.size("t") > 1
    labels.volume = replace(labels.volume, source=_Watched(labels.volume.source, 1 + twice, told))
    EXPORTS[kind.key](labels, out, overwrite=True, **known)


def _copy(snapshot: Snapshot, out: Path) -> None:
    if out.exists() and not is_label_volume(out):
        raise InputError(f"{out} holds no labels and is not replaced: choose another name")
    with replacing(out, overwrite=True) as partial:
        shutil.copytree(snapshot.labels, partial)
        if snapshot.names:
            LabelVolume.open(partial, mode="r+").set_names(snapshot.names)


class _Watched:
    """An array of labels that tells how much of it has been read, out of so many times the whole."""

    def __init__(self, array: StoredArray, times: int, told: Told) -> None:
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self._array = array
        self._read = 0
        self._total = times * int(np.prod(array.shape, dtype=np.int64))
        self._told = told

    def __getitem__(self, key: Any) -> np.ndarray:
        values = np.asarray(self._array[key])
        self._read += values.size
        self._told(min(self._read / self._total, 1.0))
        return values
