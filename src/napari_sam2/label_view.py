"""The labels of a session as napari reads and paints them: from disk, plane by plane, never as a whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from napari_sam2.image_source import Placement
from napari_sam2.lazy_array import LazyArray, as_slice, is_fancy, kept, spans, whole_key
from sam2_core.errors import InputError
from sam2_core.volume.session_state import Plane
from sam2_core.volume.session_store import SessionStore

MOST_COPIED = 2**28
"""Voxels of a copy in memory."""
KEPT_BYTES = 128 * 2**20
"""Planes that stay in memory for drawing, at least one."""


class LabelView(LazyArray):
    """An array of the shape of an image layer, behind which lie the labels of a session.

    What is painted stays here until the session has taken it (`painted`, `drop`). Axes that labels do not have, as
    channels, show the same everywhere. Planes that the session writes are to be told of (`take`).

    Parameters
    ----------
    session : Session
    placement : Placement
    shape : tuple of int
        Of the image layer.

    Attributes
    ----------
    dtype : numpy.dtype
        uint16, which napari draws as it is, or uint32, which it has to map to colours plane by plane; see `fit`.
    """

    def __init__(self, session: SessionStore, placement: Placement, shape: tuple[int, ...]) -> None:
        self._session = session
        self._placement = placement
        self.shape = shape
        self.dtype: np.dtype = np.dtype(np.uint16)
        self._painted: dict[Plane, np.ndarray] = {}
        self._before: dict[Plane, np.ndarray] = {}  # what they were painted on
        self._kept: OrderedDict[Plane, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        height, width = placement.grid.size
        self._limit = max(1, KEPT_BYTES // (4 * height * width))
        shown = [a for a in placement.axes if a == "c" or a in placement.plane_axes]
        self._channel = shown.index("c") if "c" in shown else None

    def __deepcopy__(self, memo: Any) -> np.ndarray:
        """For napari, which duplicates layers: the labels as they are now."""
        if self.size > MOST_COPIED:
            raise InputError("these labels are too large to be copied in memory: save them, and open the file")
        return np.asarray(self)

    def _pick(self, key: tuple[Any, ...]) -> np.ndarray:
        picked = spans(key, self.shape)
        block = np.empty([len(s) for s in picked], self.dtype)
        for plane, target, inside in self._planes(picked):
            with self._lock:
                painted = self._painted.get(plane)
                labels = self._read(plane) if painted is None else painted
                block[target] = self._as_shown(labels[inside])
        return block[kept(key)]

    def __setitem__(self, key: Any, values: Any) -> None:
        key = whole_key(key, self.ndim)
        if is_fancy(key):
            places = [np.ravel(k) for k in np.broadcast_arrays(*key)]
            flat = np.broadcast_to(np.ravel(values), places[0].shape)
            for value, *place in zip(flat, *places):
                self[tuple(int(p) for p in place)] = value
            return
        picked = spans(key, self.shape)
        shape = [len(s) for s, k in zip(picked, key) if isinstance(k, slice)]
        block = np.broadcast_to(np.asarray(values, self.dtype), shape).reshape([len(s) for s in picked])
        for plane, source, inside in self._planes(picked):
            with self._lock:
                if plane not in self._painted:
                    self._before[plane] = self._read(plane)
                    self._painted[plane] = self._before[plane].astype(self.dtype)
                self._painted[plane][inside] = self._as_stored(block[source])

    def fit(self, largest: int) -> bool:
        """Choose the type that holds ids up to `largest`; whether it is another one than before."""
        dtype: np.dtype = np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)
        if dtype == self.dtype:
            return False
        with self._lock:
            self.dtype = dtype
            self._painted = {plane: labels.astype(dtype) for plane, labels in self._painted.items()}
        return True

    def take(self, plane: Plane, labels: np.ndarray) -> None:
        """The session wrote a plane, (height, width): it need not be read again. For any thread."""
        with self._lock:
            self._keep(plane, labels)

    def painted(self) -> dict[Plane, np.ndarray]:
        """The planes that were painted on and wait for the session."""
        with self._lock:
            return {plane: labels.copy() for plane, labels in self._painted.items()}

    def touched(self, plane: Plane, labels: np.ndarray) -> np.ndarray:
        """Where `labels`, of a plane that was painted on, were painted, (height, width) bool."""
        with self._lock:
            return labels != self._before.get(plane, labels)

    def drop(self, plane: Plane, labels: np.ndarray) -> None:
        """Forget what was painted on a plane, unless more was painted there since it looked like `labels`."""
        with self._lock:
            waiting = self._painted.get(plane)
            if waiting is not None and np.array_equal(waiting, labels):
                del self._painted[plane], self._before[plane]

    def _planes(self, picked: list[range]) -> Iterator[tuple[Plane, tuple[Any, ...], tuple[slice, slice]]]:
        """The planes of a region: plane, place in the region, rows and columns of the plane."""
        axes = self._placement.axes
        rows, columns = (as_slice(picked[axes.index(a)]) for a in self._placement.plane_axes)
        outside = [a for a, _ in self._placement.grid.axes if a in axes]
        for place in product(*(enumerate(picked[axes.index(a)]) for a in outside)):
            at = dict(zip(outside, place))
            plane = tuple((a, at[a][1] if a in at else 0) for a, _ in self._placement.grid.axes)
            yield plane, tuple(at[a][0] if a in at else slice(None) for a in axes), (rows, columns)

    def _as_shown(self, values: np.ndarray) -> np.ndarray:
        """Rows and columns of a plane in the order of the layer's dimensions, with one place for channels."""
        rows, columns = (self._placement.axes.index(a) for a in self._placement.plane_axes)
        values = values if rows < columns else values.T
        return values if self._channel is None else np.expand_dims(values, self._channel)

    def _as_stored(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `_as_shown`."""
        rows, columns = (self._placement.axes.index(a) for a in self._placement.plane_axes)
        values = values if self._channel is None else values.take(0, self._channel)
        return values if rows < columns else values.T

    def _read(self, plane: Plane) -> np.ndarray:
        if plane not in self._kept:
            self._keep(plane, self._session.read_plane(plane))
        self._kept.move_to_end(plane)
        return self._kept[plane]

    def _keep(self, plane: Plane, labels: np.ndarray) -> None:
        self._kept[plane] = labels
        self._kept.move_to_end(plane)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
