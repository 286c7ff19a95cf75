"""An image as napari reads it: from disk, plane by plane, the next planes along the way read ahead of time.

napari reads what it shows in the window's own thread. A dask array takes tens of milliseconds to plan that; here the
plane is mostly there already.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from napari_sam2.lazy_array import LazyArray, as_slice, kept, spans
from sam2_core.errors import InputError
from sam2_core.volume.planes import PlaneSource
from sam2_core.volume.volume import Volume

AHEAD = 2
"""Planes that are read ahead on either side."""
PAUSE = 0.05
"""Seconds in which the plane that was asked for is drawn, before others are read."""


class VolumeView(LazyArray):
    """An array of the dimensions of an image layer, behind which lies a volume. Safe to use from several threads.

    Parameters
    ----------
    volume : Volume
    axes : str
        A letter for each dimension, in their order; "c" as the last one are colours.
    channel : int, optional
        The one that is shown, where there are several and `axes` has no "c".
    """

    def __init__(self, volume: Volume, axes: str, channel: int | None = None) -> None:
        self.volume = volume
        self.axes = axes
        self.channel = channel
        self.shape = tuple(volume.size(a) for a in axes)
        self.dtype = volume.dtype
        self._colours = axes.endswith("c")
        self._walk = next((a for a in "zt" if volume.size(a) > 1), None)  # the axis of the slider that is moved most
        self._lock = threading.Lock()
        self._line: tuple[dict[str, int], PlaneSource] | None = None
        self._last = 0
        self._reading: Future | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory of a copy."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __deepcopy__(self, memo: Any) -> VolumeView:
        """For napari, which duplicates layers: what cannot be written may be shared."""
        return self

    def _pick(self, key: tuple[Any, ...]) -> np.ndarray:
        """InputError if the file is gone or damaged."""
        picked = dict(zip(self.axes, spans(key, self.shape)))
        if not self._colours and all(isinstance(k, slice) == (a in "yx") for a, k in zip(self.axes, key)):
            return self._plane_part(picked)
        return self._region(picked)[kept(key)]

    def _plane_part(self, picked: dict[str, range]) -> np.ndarray:
        """A plane that a slider was moved to."""
        at = {a: span.start for a, span in picked.items() if a not in "yx"}
        index = at.pop(self._walk, 0) if self._walk else 0
        source = self._source(at)
        plane = source.raw(index)[..., 0]
        self._read_ahead(source, index)
        rows, columns = (a for a in self.axes if a in "yx")
        shown = plane if rows == "y" else plane.T
        return shown[as_slice(picked[rows]), as_slice(picked[columns])]

    def _region(self, picked: dict[str, range]) -> np.ndarray:
        """Any region, as one array with all dimensions."""
        if not all(picked.values()):
            return np.zeros([len(span) for span in picked.values()], self.dtype)
        region: dict[str, int | slice] = {a: slice(min(s), max(s) + 1) for a, s in picked.items()}
        if self.channel is not None and "c" in self.volume.axes:
            region["c"] = self.channel
        block = self.volume.read(region)
        left = [a for a in self.volume.axes if not isinstance(region.get(a), int)]
        block = block.transpose([left.index(a) for a in self.axes])
        steps = (slice(None, None, s.step if len(s) > 1 else 1) for s in picked.values())
        return block[tuple(steps)]

    def _source(self, fixed: dict[str, int]) -> PlaneSource:
        """The line that a plane is on; it keeps the planes last read, and neighbours in one chunk are read once."""
        with self._lock:
            if self._line is None or self._line[0] != fixed:
                at = dict(fixed)
                channel = at.pop("c", self.channel or 0)
                source = PlaneSource(
                    self.volume, self._walk, fixed=at, channel=channel, window=(0.0, 1.0), cache_slabs=2 * AHEAD + 1
                )
                self._line = fixed, source
            return self._line[1]

    def _read_ahead(self, source: PlaneSource, index: int) -> None:
        """Begin to read the planes that are likely to be shown next."""
        step = 1 if index >= self._last else -1
        self._last = index
        if self.volume.in_memory or (self._reading is not None and not self._reading.done()):
            return
        near = [index + d * k for k in range(1, AHEAD + 1) for d in (step, -step)]
        near = [i for i in near if 0 <= i < len(source)]
        self._reading = _reader.submit(_read_all, source, near)


_reader = ThreadPoolExecutor(1, "sam2-planes")


def _read_all(source: PlaneSource, indices: list[int]) -> None:
    time.sleep(PAUSE)
    with contextlib.suppress(InputError):  # it is told when the plane is to be shown
        for index in indices:
            source.raw(index)
