"""The labels of a session plane by plane; the last plane stays in memory, since a click reads and writes it again."""

from __future__ import annotations

import threading

import numpy as np

from sam2_core.masks import Region
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.session_state import Plane

MOST_KEPT = 2**28
"""Bytes of a plane that stays in memory."""


class LabelPlanes:
    """Planes of labels on disk. Safe to use from several threads, of which one writes at a time.

    Parameters
    ----------
    labels : LabelVolume
        Nobody else writes it.
    axis : str or None
        Along which the planes lie.
    """

    def __init__(self, labels: LabelVolume, axis: str | None) -> None:
        self._labels = labels
        self._axis = axis
        self._lock = threading.Lock()
        self._kept: tuple[Plane, np.ndarray] | None = None
        self._writes = 0

    def where(self, plane: Plane) -> tuple[str | None, int, dict[str, int]]:
        """A plane as `LabelVolume` names it: axis, index, and what is fixed."""
        fixed = dict(plane)
        index = fixed.pop(self._axis, 0) if self._axis else 0
        return self._axis, index, fixed

    def read(self, plane: Plane) -> np.ndarray:
        """The labels of a plane, (height, width) uint32, read-only."""
        with self._lock:
            kept, writes = self._kept, self._writes
        if kept is not None and kept[0] == plane:
            return kept[1]
        labels = self._labels.read_plane(*self.where(plane))
        with self._lock:
            if writes == self._writes:  # else it may be out of date already
                self._keep(plane, labels)
        labels.flags.writeable = False
        return labels

    def write(self, plane: Plane, labels: np.ndarray, region: Region | None = None) -> None:
        """Write the labels of a plane, which are not to be changed later.

        Parameters
        ----------
        plane : Plane
        labels : ndarray, (height, width)
        region : (slice, slice), optional
            Where alone they may differ from what is there.

        Raises
        ------
        InputError
            If the disk cannot be written.
        """
        self._forget()
        axis, index, fixed = self.where(plane)
        self._labels.write_plane(axis, index, labels, fixed, within=region)
        self._forget()  # what was read meanwhile
        with self._lock:
            self._keep(plane, labels)

    def _forget(self) -> None:
        with self._lock:
            self._writes += 1
            self._kept = None

    def _keep(self, plane: Plane, labels: np.ndarray) -> None:
        if labels.nbytes <= MOST_KEPT:
            labels.flags.writeable = False
            self._kept = plane, labels
