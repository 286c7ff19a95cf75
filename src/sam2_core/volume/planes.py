"""Planes of a volume, across the axis of propagation, as the frames that a predictor asks for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from sam2_core.volume.volume import Channel, Volume, check_index
from sam2_core.volume.window import Window, windows_for


class PlaneSource:
    """The frames of one run through a volume: a `FrameSource` (see `sam2_core.predict.frames`).

    Chunks that span several planes are decoded once and their planes kept, at most `cache_slabs` such slabs and
    `cache_bytes`, so that walking along the axis of propagation in either direction reads each chunk once (or,
    where a slab is larger than half the cache, once per part that fits). Safe to use from several threads.

    Parameters
    ----------
    volume : Volume
    axis : {"t", "z", "y", "x"}, optional
        Axis of propagation; by default z, else t; an image of one plane has a single frame.
    fixed : mapping of axis to int, optional
        Positions along the remaining axes, for example ``{"t": 3}`` for z of a 3D+t image.
    channel : int or tuple of up to three ints, optional
        One channel, or several as red, green and blue; by default the first, or the colours of an RGB image.
    window : (float, float), Window or one Window per channel, optional
        Intensities of black and white for the whole volume; estimated by default, per channel.
    cache_bytes : int
        Bound on the raw planes kept, in bytes; one plane is always kept.
    cache_slabs : int
        Bound on the slabs kept. Three are the one in use, the one a prefetching thread is in, and the one just left.

    Raises
    ------
    InputError
        If an axis, position or channel does not exist, or the window cannot be estimated.
    """

    def __init__(
        self,
        volume: Volume,
        axis: str | None = None,
        *,
        fixed: Mapping[str, int] | None = None,
        channel: Channel | None = None,
        window: tuple[float, float] | Window | Sequence[Window] | None = None,
        cache_bytes: int = 128 * 2**20,
        cache_slabs: int = 3,
    ) -> None:
        self.volume = volume
        self.axis = volume.default_axis() if axis is None else axis
        self.plane_axes = volume.plane_axes(self.axis)
        self.fixed = volume.fixed_coordinates(self.axis, fixed)
        self.channels = volume.channels(channel)
        self.windows = windows_for(volume, self.channels, window)
        self._cache: OrderedDict[int, Future[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self._plan(cache_bytes, cache_slabs)

    def __len__(self) -> int:
        return 1 if self.axis is None else self.volume.size(self.axis)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame in pixels."""
        return self.volume.size(self.plane_axes[0]), self.volume.size(self.plane_axes[1])

    def frame(self, i: int) -> np.ndarray:
        """Frame `i` after the window.

        Returns
        -------
        ndarray, (H, W) for one channel or (H, W, 3) for several, float32 in [0, 1]
            uint8, unchanged, for uint8 data with the window (0, 255). A composite of two channels has an
            empty blue.
        """
        raw = self.raw(i)
        if raw.dtype == np.uint8 and all(w == Window(0.0, 255.0) for w in self.windows):
            planes = raw
        else:
            planes = np.stack([w.apply(raw[..., k]) for k, w in enumerate(self.windows)], -1)
        if planes.shape[-1] == 1:
            return planes[..., 0]
        if planes.shape[-1] == 2:
            planes = np.concatenate([planes, np.zeros_like(planes[..., :1])], -1)
        return np.ascontiguousarray(planes)

    def raw(self, i: int) -> np.ndarray:
        """Frame `i` before the window: (H, W, channels) in the file's type, read-only."""
        check_index(i, len(self), "frame", self.volume.name)
        if self._depth == 0:
            return self._read(i, i + 1)[0]
        chunk = i - i % self._chunk
        start = i - (i - chunk) % self._depth
        with self._lock:
            future = self._cache.get(start)
            mine = future is None
            if future is None:
                future = self._cache[start] = Future()
                while len(self._cache) > self._slabs:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(start)
        if mine:
            try:
                future.set_result(self._read(start, min(start + self._depth, chunk + self._chunk, len(self))))
            except BaseException as error:
                with self._lock:
                    self._cache.pop(start, None)
                future.set_exception(error)
                raise
        return future.result()[i - start]

    def _read(self, start: int, stop: int) -> np.ndarray:
        """Planes start..stop-1 as (planes, H, W, channels)."""
        region: dict[str, int | slice] = dict(self.fixed)
        if self.axis is not None:
            region[self.axis] = slice(start, stop)
        if "c" not in self.volume.axes:
            block, picked = self.volume.read(region), [0] * len(self.channels)
        elif self.volume.chunks[self.volume.axes.index("c")] == 1:
            region["c"] = self.channels[0]
            blocks = [self.volume.read({**region, "c": c}) for c in self.channels]
            block, picked = np.stack(blocks, -1), list(range(len(blocks)))
        else:  # channels that share a chunk are read at once
            first = min(self.channels)
            region["c"] = slice(first, max(self.channels) + 1)
            block, picked = self.volume.read(region), [c - first for c in self.channels]
        left = [a for a in self.volume.axes if not isinstance(region.get(a), int)]
        if "c" not in left:
            block, left = block if block.ndim > len(left) else block[..., None], [*left, "c"]
        if self.axis is None:
            block, left = block[None], ["", *left]
        order = [self.axis or "", *self.plane_axes, "c"]
        block = block.transpose([left.index(a) for a in order])[..., picked]
        block = np.ascontiguousarray(block)
        block.flags.writeable = False
        return block

    def _plan(self, cache_bytes: int, cache_slabs: int) -> None:
        """Choose how many planes are read at once: a whole chunk of them, or as equal a part as fits."""
        self._depth = 0  # data in memory are read directly
        if self.volume.in_memory:
            return
        height, width = self.size
        plane = height * width * len(self.channels) * self.volume.dtype.itemsize
        self._chunk = 1 if self.axis is None else self.volume.chunks[self.volume.axes.index(self.axis)]
        parts = -(-self._chunk // max(1, cache_bytes // (2 * plane)))
        self._depth = -(-self._chunk // parts)
        self._slabs = int(np.clip(cache_bytes // (plane * self._depth), 1, cache_slabs))


def raw_planes(volume: Volume, axis: str | None = None) -> Iterator[tuple[dict[str, int], np.ndarray]]:
    """Every plane as it is stored, (h, w), with its position, in the order t, z (or across `axis`); a chunk read once.

    For volumes without channels, such as labels; of others it gives the first.
    """
    axis = axis or volume.default_axis()
    source: PlaneSource | None = None
    for where in plane_positions(volume, axis):
        fixed = {a: i for a, i in where.items() if a != axis}
        if source is None or source.fixed != fixed:
            source = PlaneSource(volume, axis, fixed=fixed, window=(0.0, 1.0))
        yield where, source.raw(where.get(axis or "", 0))[..., 0]


def plane_positions(volume: Volume, axis: str | None) -> Iterator[dict[str, int]]:
    """The position of every plane across `axis` along the axes that are not in it, `axis` running fastest."""
    axes = [a for a in volume.axes if a not in volume.plane_axes(axis) + "c"]
    ordered = [a for a in axes if a != axis] + [a for a in axes if a == axis]
    for at in np.ndindex(*(volume.size(a) for a in ordered)):
        yield dict(zip(ordered, map(int, at)))
